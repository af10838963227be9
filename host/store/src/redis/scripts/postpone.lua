-- Puts an entry that cannot be read off, so that it does not stand in the way of others. Twice does no harm.
local entry = arg()
local urgency = arg()
local channel = arg()
if redis.call('ZSCORE', ready_key(urgency, channel), entry) then
  place(entry, urgency, channel, now + number())
end
