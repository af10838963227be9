-- Releases a claimed dispatch; what became of it is in the words below.
local it = arg()
local target = arg()
local claim = arg()
local became = arg()
local at = number()
local key = dispatch_key(it)
local fields = redis.call('HMGET', key, 'claim', 'revision')
if fields[1] ~= claim then
  return unchanged('gone')
end
redis.call('HDEL', key, 'claim')
if became == 'told' then
  local position, version, complete = arg(), number(), arg()
  if complete == '1' and tonumber(fields[2]) <= version then
    dispatch_goes(it, target)
  else
    redis.call('HSET', key, 'position', position, 'attempts', 0)
    dispatch_ready(it, target, 0)
  end
elseif became == 'held' then
  local position, version = arg(), number()
  redis.call('HSET', key, 'position', position, 'attempts', 0, 'since', digits(at))
  dispatch_waits(it, target, digits(at))
  dispatch_ready(it, target, tonumber(fields[2]) > version and 0 or digits(at + ahead))
elseif became == 'retry' then
  redis.call('HINCRBY', key, 'attempts', 1)
  dispatch_ready(it, target, digits(at + ahead))
elseif became == 'released' then
  dispatch_ready(it, target, digits(at + ahead))
elseif became == 'dead' then
  redis.call('HSET', key, 'failure', arg())
  dispatch_dies(it, target, digits(at))
else
  dispatch_goes(it, target)
end
return done('done')
