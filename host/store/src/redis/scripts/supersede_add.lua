-- Puts a request on the list of those with its supersede key, unless it is there: after all others, whatever clocks say.
local ids = P .. 'sup:' .. arg()
local id = arg()
if redis.call('ZSCORE', ids, id) then
  return unchanged('had')
end
local time = redis.call('TIME')
local last = redis.call('ZREVRANGE', ids, 0, 0, 'WITHSCORES')
-- In microseconds, which a score holds exactly.
local place = math.max(time[1] * 1000000 + time[2], (tonumber(last[2]) or 0) + 1)
redis.call('ZADD', ids, digits(place), id)
return done('new')
