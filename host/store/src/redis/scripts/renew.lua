-- Renews the claim of an outbox entry, if it still holds the entry. No operation id: the claim's own id says what it is.
local entry = arg()
local claim = arg()
local expires = number() + ahead
local it = redis.call('HMGET', P .. 'ob:' .. entry, 'urgency', 'channel', 'claim')
if it[3] ~= claim then
  return 0
end
place(entry, it[1], it[2], expires)
return 1
