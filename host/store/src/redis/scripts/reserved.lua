-- Which requests count as open ones of a caller: each with how many seconds ago it was reserved.
local seconds = redis.call('TIME')[1]
local fields = redis.call('HGETALL', P .. 'quota:' .. arg())
local found = {}
for at = 1, #fields, 2 do
  local since = string.match(fields[at + 1], '^(%d+) ')
  found[#found + 1] = { fields[at], digits(seconds - since) }
end
return found
