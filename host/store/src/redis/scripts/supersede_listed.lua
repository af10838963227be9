-- The requests with a supersede key, in their order: each with how many seconds ago it was put on the list.
local seconds = redis.call('TIME')[1]
local listed = redis.call('ZRANGE', P .. 'sup:' .. arg(), 0, -1, 'WITHSCORES')
local found = {}
for at = 1, #listed, 2 do
  found[#found + 1] = { listed[at], digits(math.max(0, seconds - math.floor(listed[at + 1] / 1000000))) }
end
return found
