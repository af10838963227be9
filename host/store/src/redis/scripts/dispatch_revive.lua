-- Makes a dead letter ready again.
local it = arg()
local target = arg()
local now = number()
if redis.call('ZREM', P .. 'dispdead:' .. target, it) == 0 then
  return unchanged('none')
end
local key = dispatch_key(it)
redis.call('HDEL', key, 'failure')
redis.call('HSET', key, 'attempts', 0, 'since', digits(now))
dispatch_waits(it, target, digits(now))
dispatch_ready(it, target, 0)
records()
return done('revived')
