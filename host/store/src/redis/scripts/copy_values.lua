-- Stores values of another store under their keys, with when they expire, if they do. Tells of each whether it is new (1),
-- the same (0), or another one (x).
local outcomes = {}
for at = 1, number() do
  local key, value, expires = arg(), arg(), arg()
  local before = redis.call('GET', P .. key)
  if before then
    outcomes[at] = before == value and '0' or 'x'
  else
    redis.call('SET', P .. key, value)
    if expires ~= '' then
      redis.call('ZADD', P .. 'expiring', expires, key)
    end
    local module = string.match(key, '^module:(.*)$')
    if module then
      redis.call('HSET', P .. 'modules', module, #value)
    end
    outcomes[at] = '1'
  end
end
return done(table.concat(outcomes))
