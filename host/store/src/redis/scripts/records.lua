-- How many entries a block of the audit log has. `audit:from` and `audit:to` have the first and the last time of each block.
local BLOCK = 256

-- Appends audit entries, and adds to counters.
local function records()
  for _ = 1, number() do
    local place = redis.call('INCR', P .. 'audit:n')
    local body, digest, at, request = arg(), arg(), arg(), arg()
    redis.call('XADD', P .. 'audit', digits(place) .. '-0', 'b', body, 'd', digest)
    local block = digits(math.floor((place - 1) / BLOCK))
    redis.call('ZADD', P .. 'audit:from', 'LT', at, block)
    redis.call('ZADD', P .. 'audit:to', 'GT', at, block)
    if request ~= '' then
      redis.call('RPUSH', P .. 'audit:of:' .. request, digits(place))
    end
  end
  for _ = 1, number() do
    local counter = arg()
    -- One that would overflow stays as it is, rather than that the rest of the write fails.
    redis.pcall('HINCRBY', P .. 'cnt', counter, arg())
  end
end
