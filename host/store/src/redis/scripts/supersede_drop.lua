-- Takes requests off the list of those with their supersede key.
local ids = P .. 'sup:' .. arg()
for _ = 1, number() do
  redis.call('ZREM', ids, arg())
end
