-- Takes tokens of a bucket, as many as are wanted and there are. Tells how many, and after how many milliseconds there will
-- be one for the others.
local key = P .. 'rate:' .. arg()
local capacity = number()
local per_ms = number() / 1000
local wanted = number()
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local bucket = redis.call('HMGET', key, 'tokens', 'at')
local tokens = capacity
if bucket[1] then
  tokens = math.min(capacity, tonumber(bucket[1]) + math.max(0, now - tonumber(bucket[2])) * per_ms)
end
local taken = math.min(wanted, math.floor(tokens))
tokens = tokens - taken
local wait = 0
if taken < wanted then
  wait = per_ms > 0 and math.ceil((1 - tokens) / per_ms) or 2 ^ 53
end
redis.call('HSET', key, 'tokens', string.format('%.17g', tokens), 'at', string.format('%.17g', now))
-- A full bucket need not be stored.
if per_ms > 0 then
  redis.call('PEXPIRE', key, math.max(1, math.ceil(math.min((capacity - tokens) / per_ms, 2 ^ 52))))
end
return { digits(taken), digits(wait) }
