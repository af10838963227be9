-- Stores the next version of an open request, with all that belongs to it.
local id = arg()
local origin = arg()
local nonce = nonce()
if nonce and nonce.repeated then
  return unchanged('repeated')
end
local version = arg()
local row = P .. 'r:' .. id
local before = redis.call('HMGET', row, 'v', 'kind', 'at', 'q')
if not before[1] or not before[2] or tonumber(before[1]) + 1 ~= tonumber(version) then
  return unchanged('conflict')
end
local submitted = tonumber(before[3])
redis.call('HSET', row, 'v', version, 'body', arg())
local kind = arg()
local due = arg()
local changed = number()
local outcome = 'done'
if kind ~= before[2] then
  closed(before[2], id, submitted)
end
if kind ~= '' then
  redis.call('ZADD', P .. 'due', due, id)
  if kind ~= before[2] then
    redis.call('HSET', row, 'kind', kind)
    opened(kind, id, submitted)
  end
else
  redis.call('HDEL', row, 'kind', 'q')
  redis.call('ZREM', P .. 'due', id)
  redis.call('ZADD', P .. 'ended', changed, id)
  if before[4] then
    outcome = 'released'
  end
end
keep_nonce(nonce)
enqueue(id, version, changed)
records()
announce(origin .. ' request ' .. id .. ' ' .. version)
return done(outcome)
