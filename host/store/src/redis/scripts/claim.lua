-- Claims an outbox entry, if it is ready.
local entry = arg()
local claim = arg()
local expires = number() + ahead
local key = P .. 'ob:' .. entry
local it = redis.call('HMGET', key, 'urgency', 'channel', 'revision', 'attempts', 'since')
if not it[1] or not readiness(entry, it[1], it[2], now) then
  return unchanged(false)
end
redis.call('HSET', key, 'claim', claim)
place(entry, it[1], it[2], expires)
return done(it[3] .. ' ' .. it[4] .. ' ' .. it[5])
