-- Stores the next revision of a message's delivery state.
local message = arg()
local revision = arg()
local channel = arg()
local refresh_at = arg()
local key = P .. 'post:' .. message
local before = redis.call('HMGET', key, 'revision', 'channel')
if tonumber(before[1] or 0) + 1 ~= tonumber(revision) then
  return unchanged('conflict')
end
if before[2] then
  forget_refresh(message, before[2])
end
redis.call('HSET', key, 'revision', revision, 'channel', channel, 'body', arg())
if refresh_at ~= '' then
  keep_refresh(message, channel, refresh_at)
end
records()
return done('done')
