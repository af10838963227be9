-- Renews the claim of a dispatch, if it still holds the dispatch. No operation id: the claim's own id says what it is.
local it = arg()
local target = arg()
local claim = arg()
local expires = number() + ahead
if redis.call('HGET', dispatch_key(it), 'claim') ~= claim then
  return 0
end
dispatch_ready(it, target, expires)
return 1
