-- Stores changes of the policy set in force of another store, in their order. `to` is empty if one puts no set in force.
for _ = 1, number() do
  local to = arg()
  local place = redis.call('RPUSH', P .. 'changes', arg())
  if to ~= '' then
    redis.call('HSET', P .. 'force', 'set', to, 'change', place)
  end
end
return done('done')
