-- Up to `limit` requests of a lineage with depths from `from` on. Its first one is not in the index.
local lineage = arg()
local from = number()
local limit = number()
local found = {}
if from == 0 and limit > 0 then
  local first = redis.call('HMGET', P .. 'r:' .. lineage, 'v', 'depth')
  if first[1] and not first[2] then
    found[1] = stored(lineage)
  end
end
local ids = redis.call('ZRANGEBYSCORE', P .. 'lin:' .. lineage, from, '+inf', 'LIMIT', 0, limit - #found)
for _, id in ipairs(ids) do
  found[#found + 1] = stored(id)
end
return found
