-- The last change that put a set in force, with its number.
local place = redis.call('HGET', P .. 'force', 'change')
if not place then
  return false
end
return { place, redis.call('LINDEX', P .. 'changes', place - 1) }
