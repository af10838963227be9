-- Requests are not, or no longer, among the open ones of their caller.
local caller = arg()
local ids, counts = P .. 'quota:' .. caller, P .. 'quotan:' .. caller
for _ = 1, number() do
  local id = arg()
  local reserved = redis.call('HGET', ids, id)
  if reserved then
    local action = string.match(reserved, '^%d+ (.*)$')
    redis.call('HDEL', ids, id)
    if redis.call('HINCRBY', counts, action, -1) <= 0 then
      redis.call('HDEL', counts, action)
    end
  end
end
