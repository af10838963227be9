-- Appends audit entries, and adds to counters.
local function records()
  for _ = 1, number() do
    local place = redis.call('INCR', P .. 'audit:n')
    redis.call('XADD', P .. 'audit', digits(place) .. '-0', 'body', arg())
  end
  for _ = 1, number() do
    local counter = arg()
    -- One that would overflow stays as it is, rather than that the rest of the write fails.
    redis.pcall('HINCRBY', P .. 'cnt', counter, arg())
  end
end
