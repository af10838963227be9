-- Removes a policy set, with what no other one names, unless anything has changed since that was decided.
local hash = arg()
local known = {}
local count = number()
for _ = 1, count do
  known[arg()] = true
end
local use = arg()
local can_go = redis.call('HGET', P .. 'force', 'set') ~= hash
local member
for _, listed in ipairs(redis.call('ZRANGE', P .. 'sets', 0, -1)) do
  local set = string.sub(listed, 14)
  if set == hash then
    member = listed
  end
  can_go = can_go and known[set]
  count = count - 1
end
for _ = 1, number() do
  local value = redis.call('GET', P .. 'doc:' .. arg())
  local is_stored, expected = arg() == '1', arg()
  if is_stored then
    can_go = can_go and value == expected
  else
    can_go = can_go and not value
  end
end
if not can_go or not member or count ~= 0 then
  return unchanged('conflict')
end
redis.call('DEL', P .. 'set:' .. hash, P .. 'sig:' .. hash, P .. 'doc:' .. use)
redis.call('ZREM', P .. 'sets', member)
for _ = 1, number() do
  redis.call('DEL', P .. 'entry:' .. arg())
end
for _ = 1, number() do
  local digest = arg()
  redis.call('DEL', P .. 'module:' .. digest, P .. 'sig:' .. digest)
  redis.call('HDEL', P .. 'modules', digest)
end
records()
return done('done')
