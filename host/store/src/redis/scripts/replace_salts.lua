-- Replaces those salts that are stored as they were read, and tells how many these were.
local replaced = 0
for _ = 1, number() do
  local row = P .. 'r:' .. arg()
  local from = { arg(), arg() }
  local to = { arg(), arg() }
  local salt = redis.call('HMGET', row, 'sk', 'salt')
  if salt[1] == from[1] and salt[2] == from[2] then
    redis.call('HSET', row, 'sk', to[1], 'salt', to[2])
    replaced = replaced + 1
  end
end
return done(replaced)
