-- The newest request of a lineage.
local lineage = arg()
local id = redis.call('ZREVRANGE', P .. 'lin:' .. lineage, 0, 0)[1]
if id then
  return stored(id)
end
local first = redis.call('HMGET', P .. 'r:' .. lineage, 'v', 'depth')
if first[1] and not first[2] then
  return stored(lineage)
end
return false
