-- Removes a delivered entry. If a newer version has enqueued it since, it stays, and is ready unless somebody else has it.
local entry = arg()
local claim = arg()
local delivered = number()
local key = P .. 'ob:' .. entry
local it = redis.call('HMGET', key, 'urgency', 'channel', 'revision', 'claim')
if not it[1] then
  return unchanged('gone')
end
if tonumber(it[3]) <= delivered then
  redis.call('DEL', key)
  displace(entry, it[1], it[2])
  redis.call('ZREM', P .. 'waiting', entry)
elseif it[4] == claim then
  redis.call('HDEL', key, 'claim')
  place(entry, it[1], it[2], 0)
end
return done('done')
