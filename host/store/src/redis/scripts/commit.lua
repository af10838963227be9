-- Stores the next version of a request, with all that belongs to it. One that has ended keeps its status.
local id = arg()
local origin = arg()
local nonce = nonce()
if nonce and nonce.repeated then
  return unchanged('repeated')
end
local version = arg()
local row = P .. 'r:' .. id
local before = redis.call('HMGET', row, 'v', 'kind', 'at', 'q', 'end')
local body = arg()
local kind = arg()
local due = arg()
local changed = number()
local ended = arg()
-- Where it is counted as open, if that is on this server.
local home = arg()
local caller = arg()
local keeps_its_end = before[2] or (before[5] and before[5] == ended)
if not before[1] or not keeps_its_end or tonumber(before[1]) + 1 ~= tonumber(version) then
  return unchanged('conflict')
end
local submitted = tonumber(before[3])
local fields = { 'v', version, 'body', body }
local function field(name, value)
  table.insert(fields, name)
  table.insert(fields, value)
end
local outcome = 'done'
if before[2] and kind ~= before[2] then
  closed(before[2], id, submitted)
end
if kind ~= '' then
  redis.call('ZADD', P .. 'due', due, id)
  if kind ~= before[2] then
    field('kind', kind)
    opened(kind, id, submitted)
  end
elseif before[2] then
  redis.call('HDEL', row, 'kind', 'q')
  field('end', ended)
  redis.call('ZREM', P .. 'due', id)
  redis.call('ZADD', P .. 'ended', changed, id)
  if before[4] then
    outcome = 'released'
    if home ~= '' then
      vacate(places_of(home, caller), id)
    end
  end
end
redis.call('HSET', row, unpack(fields))
keep_nonce(nonce)
enqueue(id, version, changed)
dispatch(id, version, changed)
records()
announce(origin .. ' request ' .. id .. ' ' .. version)
return done(outcome)
