-- Stores a policy set by its hash. What is stored already does not change.
local hash = arg()
local stored_at = arg()
local entries = arg()
local document = arg()
local key = P .. 'set:' .. hash
if redis.call('EXISTS', key) == 1 then
  return unchanged('known')
end
redis.call('HSET', key, 'at', stored_at, 'entries', entries, 'document', document)
-- Those of one time come in the order in which they were stored.
local place = redis.call('INCR', P .. 'sets:n')
redis.call('ZADD', P .. 'sets', stored_at, string.format('%012.0f', place) .. ':' .. hash)
return done('done')
