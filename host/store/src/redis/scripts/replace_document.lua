-- Stores a document, if the one before is as expected.
local origin = arg()
local name = arg()
local value = arg()
local is_there = arg() == '1'
local expected = arg()
local before = redis.call('GET', P .. 'doc:' .. name)
if (is_there and before ~= expected) or (not is_there and before) then
  return unchanged('differs')
end
redis.call('SET', P .. 'doc:' .. name, value)
announce(origin .. ' document ' .. name)
return done('done')
