-- Claims an outbox entry, if it is ready.
local entry = arg()
local claim = arg()
local expires = number() + ahead
local key = P .. 'ob:' .. entry
local it = redis.call('HMGET', key, 'urgency', 'channel', 'revision', 'attempts', 'since', 'claim')
if not it[1] or not readiness(entry, it[1], it[2], now) then
  return unchanged(false)
end
redis.call('HSET', key, 'claim', claim)
place(entry, it[1], it[2], expires)
-- Whoever had it before, and let the claim end, may have begun something.
return done(it[3] .. ' ' .. it[4] .. ' ' .. it[5] .. (it[6] and ' 1' or ' 0'))
