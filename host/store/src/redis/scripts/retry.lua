-- Gives a claimed entry back, to be ready again at a time.
local entry = arg()
local claim = arg()
local ready_at = number() + ahead
local failed = arg()
local key = P .. 'ob:' .. entry
local it = redis.call('HMGET', key, 'urgency', 'channel', 'claim')
if it[3] ~= claim then
  return unchanged('gone')
end
redis.call('HDEL', key, 'claim')
redis.call('HINCRBY', key, 'attempts', failed)
place(entry, it[1], it[2], ready_at)
return done('done')
