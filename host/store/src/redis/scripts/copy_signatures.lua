-- Stores signatures of another store. Tells of each whether it is new (1), or was here (0).
local outcomes = {}
for at = 1, number() do
  local digest = arg()
  outcomes[at] = redis.call('SADD', P .. 'sig:' .. digest, arg())
end
return done(table.concat(outcomes))
