-- How many requests are open. A kind is the JSON array [action, status, personas that it waits for, policy hash].
-- Submission times are summed from the beginning of 2020, so that the sum of any number of them fits.
local SINCE_MS = 1577836800000

local function oldest(kind)
  local parts = cjson.decode(kind)
  return P .. 'oldest:' .. parts[2] .. ':' .. parts[1]
end

local function opened(kind, id, submitted)
  redis.call('HINCRBY', P .. 'open', 'n' .. kind, 1)
  redis.call('HINCRBY', P .. 'open', 's' .. kind, digits(submitted - SINCE_MS))
  redis.call('ZADD', oldest(kind), submitted, id)
end

local function closed(kind, id, submitted)
  redis.call('HINCRBY', P .. 'open', 's' .. kind, digits(SINCE_MS - submitted))
  if redis.call('HINCRBY', P .. 'open', 'n' .. kind, -1) <= 0 then
    redis.call('HDEL', P .. 'open', 'n' .. kind, 's' .. kind)
  end
  redis.call('ZREM', oldest(kind), id)
end
