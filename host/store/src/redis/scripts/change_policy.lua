-- Stores a change of the policy set in force. `from` and `to` are empty if there is none.
local origin = arg()
local puts_in_force = arg() == '1'
local from = arg()
local to = arg()
local body = arg()
local force = P .. 'force'
if puts_in_force and (redis.call('HGET', force, 'set') or '') ~= from then
  return unchanged('conflict')
end
local place = redis.call('RPUSH', P .. 'changes', body)
if puts_in_force then
  redis.call('HSET', force, 'set', to, 'change', place)
end
records()
announce(origin .. ' policy')
return done('done')
