-- Takes a token of a bucket. If there is none, tells after how many milliseconds there will be; else -1.
local key = P .. 'rate:' .. arg()
local capacity = number()
local per_ms = number() / 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local bucket = redis.call('HMGET', key, 'tokens', 'at')
local tokens = capacity
if bucket[1] then
  tokens = math.min(capacity, tonumber(bucket[1]) + math.max(0, now - tonumber(bucket[2])) * per_ms)
end
local wait = -1
if tokens >= 1 then
  tokens = tokens - 1
elseif per_ms > 0 then
  wait = math.ceil((1 - tokens) / per_ms)
else
  wait = 2 ^ 53
end
redis.call('HSET', key, 'tokens', string.format('%.17g', tokens), 'at', string.format('%.17g', now))
-- A full bucket need not be stored.
if per_ms > 0 then
  redis.call('PEXPIRE', key, math.max(1, math.ceil(math.min((capacity - tokens) / per_ms, 2 ^ 52))))
end
return digits(wait)
