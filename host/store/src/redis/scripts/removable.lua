-- The oldest `limit` requests of a lineage, each with until when its idempotency key counts, and whether somebody is
-- still to be told of it: by a message, or as a target outside.
local lineage = arg()
local limit = number()
local effects = {}
for at = 1, number() do
  effects[at] = arg()
end
local ids = {}
local first = redis.call('HMGET', P .. 'r:' .. lineage, 'v', 'depth')
if first[1] and not first[2] then
  ids[1] = lineage
end
for _, id in ipairs(redis.call('ZRANGE', P .. 'lin:' .. lineage, 0, limit - #ids - 1)) do
  ids[#ids + 1] = id
end
local targets = redis.call('SMEMBERS', P .. 'disptargets')
local found = {}
for at, id in ipairs(ids) do
  local waiting = 0
  for _, effect in ipairs(effects) do
    waiting = waiting + redis.call('EXISTS', P .. 'ob:' .. id .. ':' .. effect)
  end
  local row = stored(id)
  row[7] = redis.call('HGET', P .. 'r:' .. id, 'key') or ''
  local untold = math.min(waiting, redis.call('EXISTS', P .. 'post:' .. id .. ':main'))
  for _, target in ipairs(targets) do
    local dispatch = redis.call('HMGET', P .. 'disp:' .. id .. ':' .. target, 'position', 'failure')
    if dispatch[1] and not dispatch[2] then
      untold = 1
    end
  end
  row[8] = digits(untold)
  found[at] = row
end
return found
