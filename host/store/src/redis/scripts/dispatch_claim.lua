-- Claims a dispatch, if it is ready.
local it = arg()
local target = arg()
local claim = arg()
local expires = number() + ahead
local at = redis.call('ZSCORE', P .. 'dispready:' .. target, it)
at = tonumber(at or 'inf')
if at == math.huge or (at > now and at <= now + LONGEST_PAUSE_MS) then
  return unchanged(false)
end
local key = dispatch_key(it)
local fields = redis.call('HMGET', key, 'position', 'attempts', 'since')
redis.call('HSET', key, 'claim', claim)
dispatch_ready(it, target, expires)
return done((fields[1] or '') .. ' ' .. (fields[2] or '') .. ' ' .. (fields[3] or ''))
