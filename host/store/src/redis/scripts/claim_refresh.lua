-- Puts a refresh off, if it is due.
local message = arg()
local at = number()
local later = arg()
local channel = redis.call('HGET', P .. 'post:' .. message, 'channel')
local due = channel and redis.call('ZSCORE', refresh_key(channel), message)
if not due or (tonumber(due) > at and tonumber(due) <= at + LONGEST_WAIT_MS) then
  return unchanged(false)
end
keep_refresh(message, channel, later)
return done('done')
