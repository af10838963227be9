-- When messages are to be looked at again, by channel.
local function refresh_key(channel)
  return P .. 'refresh:' .. channel
end

local function forget_refresh(message, channel)
  redis.call('ZREM', refresh_key(channel), message)
  if redis.call('EXISTS', refresh_key(channel)) == 0 then
    redis.call('SREM', P .. 'refreshch', channel)
  end
end

local function keep_refresh(message, channel, at)
  redis.call('ZADD', refresh_key(channel), at, message)
  redis.call('SADD', P .. 'refreshch', channel)
end
