-- When the newest `limit` requests of a lineage were submitted, newest first, as far as that was after `since`.
local lineage = arg()
local since = number()
local limit = number()
local times = {}
if limit > 0 then
  for _, id in ipairs(redis.call('ZREVRANGE', P .. 'lin:' .. lineage, 0, limit - 1)) do
    times[#times + 1] = redis.call('HGET', P .. 'r:' .. id, 'at')
  end
  local first = redis.call('HMGET', P .. 'r:' .. lineage, 'at', 'depth')
  if #times < limit and first[1] and not first[2] then
    times[#times + 1] = first[1]
  end
end
local recent = {}
for _, time in ipairs(times) do
  if time and tonumber(time) > since then
    recent[#recent + 1] = time
  end
end
return recent
