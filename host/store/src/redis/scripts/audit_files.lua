-- Says how far the audit file of an instance is, if one is named, and tells how far those of all are.
local files = P .. 'audit:files'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local instance = arg()
if instance ~= '' then
  local ends = now + number()
  redis.call('HSET', files, instance, digits(ends) .. ' ' .. arg())
end
local known = redis.call('HGETALL', files)
local found = {}
for at = 1, #known, 2 do
  local ends, entries = string.match(known[at + 1], '^(%d+) (.*)$')
  if ends and tonumber(ends) > now then
    found[#found + 1] = entries
  else
    redis.call('HDEL', files, known[at])
  end
end
return found
