-- The dead letters of a target, those that died first first.
local target = arg()
local page = redis.call('ZRANGE', P .. 'dispdead:' .. target, 0, number() - 1, 'WITHSCORES')
local found = {}
for at = 1, #page, 2 do
  local fields = redis.call('HMGET', dispatch_key(page[at]), 'position', 'since', 'failure')
  found[#found + 1] = { page[at], page[at + 1], fields[1], fields[2], fields[3] }
end
return found
