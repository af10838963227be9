-- Says that an instance lives, and tells which ones do.
local instance = arg()
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', P .. 'instances', now + number(), instance)
redis.call('ZREMRANGEBYSCORE', P .. 'instances', '-inf', now)
return redis.call('ZRANGE', P .. 'instances', 0, -1)
