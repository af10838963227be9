-- Every policy set, newest first.
local found = {}
for _, member in ipairs(redis.call('ZREVRANGE', P .. 'sets', 0, -1)) do
  local hash = string.sub(member, 14)
  local set = redis.call('HMGET', P .. 'set:' .. hash, 'at', 'entries')
  found[#found + 1] = { hash, set[1], set[2] }
end
return found
