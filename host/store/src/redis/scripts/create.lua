-- Stores a new request, with all that belongs to it.
local function follows(lineage, depth)
  if depth == 1 then
    return redis.call('EXISTS', P .. 'r:' .. lineage) == 1
  end
  return redis.call('ZCOUNT', P .. 'lin:' .. lineage, depth - 1, depth - 1) > 0
end

local id = arg()
local origin = arg()
local submitted = number()
local nonce = nonce()
if nonce and nonce.repeated then
  return unchanged('repeated')
end
local key = arg()
local fingerprint, expires
if key ~= '' then
  fingerprint = arg()
  expires = arg()
  local known = idempotent(key, submitted)
  if known then
    return unchanged(known)
  end
end
-- `full`: its caller may not have another open one. `reserved`: it counts as open until it is released. `here`: it is counted
-- with this write, if there is room.
local quota = arg()
local places, most
if quota == 'here' then
  places, most = places_of(arg(), arg()), limits()
end
if quota == 'full' or places and standing(places, id, most, 0, 0) == 'full' then
  return unchanged('full')
end
local lineage = arg()
local depth = number()
local row = P .. 'r:' .. id
if redis.call('EXISTS', row) == 1 then
  return unchanged('conflict')
end
-- The first request of a lineage gives it its name, so it is found by its id.
if depth > 0 then
  if redis.call('ZCOUNT', P .. 'lin:' .. lineage, depth, depth) > 0 then
    return unchanged('conflict')
  end
end
-- What it follows was removed since it was read.
if depth > 0 and not follows(lineage, depth) then
  return unchanged('conflict')
end
local version = arg()
local body = arg()
-- Until when its idempotency key counts: 0 if it has none. A request of an earlier version does not say.
local fields = { 'v', version, 'body', body, 'at', digits(submitted), 'key', expires or 0 }
local function field(name, value)
  table.insert(fields, name)
  table.insert(fields, value)
end
if depth > 0 then
  field('depth', depth)
  redis.call('ZADD', P .. 'lin:' .. lineage, depth, id)
end
local salt_key = arg()
local salt = arg()
if salt_key ~= '' then
  field('sk', salt_key)
  field('salt', salt)
end
redis.call('ZADD', P .. 'ids', 0, id)
-- INVARIANT: a request has a kind, and a due time, exactly if it is open.
local kind = arg()
local due = arg()
local changed = number()
local ended = arg()
if kind ~= '' then
  field('kind', kind)
  redis.call('ZADD', P .. 'due', due, id)
  opened(kind, id, submitted)
  if places then
    occupy(places, id, most.action)
  end
  if quota ~= 'free' then
    field('q', '1')
  end
else
  field('end', ended)
  redis.call('ZADD', P .. 'ended', changed, id)
end
redis.call('HSET', row, unpack(fields))
keep_nonce(nonce)
if key ~= '' then
  keep('idem:' .. key, expires .. ' ' .. fingerprint .. ' ' .. id, expires)
end
enqueue(id, version, changed)
dispatch(id, version, changed)
records()
announce(origin .. ' request ' .. id .. ' ' .. version)
return done('new')
