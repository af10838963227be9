-- Which instances live.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', P .. 'instances', '(' .. digits(now), '+inf')
