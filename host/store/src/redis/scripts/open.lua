-- How many requests are open, by kind: the kind, how many, the sum of their submission times since 2020, and the oldest.
local fields = redis.call('HGETALL', P .. 'open')
local sums, found = {}, {}
for at = 1, #fields, 2 do
  sums[fields[at]] = fields[at + 1]
end
for field, count in pairs(sums) do
  if string.sub(field, 1, 1) == 'n' then
    local kind = string.sub(field, 2)
    local first = redis.call('ZRANGE', oldest(kind), 0, 0, 'WITHSCORES')
    found[#found + 1] = { kind, count, sums['s' .. kind] or '0', first[2] or '0' }
  end
end
return found
