-- The hashes of all policy sets, in the order in which they were stored.
local members = redis.call('ZRANGE', P .. 'sets', 0, -1)
table.sort(members)
local found = {}
for at, member in ipairs(members) do
  found[at] = string.sub(member, 14)
end
return found
