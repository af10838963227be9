-- Counts a request among the open ones of its caller, unless there are too many. No operation id: it is counted by its id.
local caller = arg()
local id = arg()
local action = arg()
local in_all = arg()
local of_action = arg()
local ids, counts = P .. 'quota:' .. caller, P .. 'quotan:' .. caller
if redis.call('HEXISTS', ids, id) == 1 then
  return 'had'
end
if in_all ~= '' and redis.call('HLEN', ids) >= tonumber(in_all) then
  return 'full'
end
if of_action ~= '' and tonumber(redis.call('HGET', counts, action) or 0) >= tonumber(of_action) then
  return 'full'
end
redis.call('HSET', ids, id, redis.call('TIME')[1] .. ' ' .. action)
redis.call('HINCRBY', counts, action, 1)
return 'new'
