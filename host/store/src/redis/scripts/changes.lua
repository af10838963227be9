-- Up to `limit` changes with numbers below `before`, newest first, each with its number.
local last = math.min(number() - 1, redis.call('LLEN', P .. 'changes'))
local first = math.max(last - number() + 1, 1)
local found = {}
if last >= first then
  local bodies = redis.call('LRANGE', P .. 'changes', first - 1, last - 1)
  for at = #bodies, 1, -1 do
    found[#found + 1] = { digits(first + at - 1), bodies[at] }
  end
end
return found
