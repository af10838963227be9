-- The caller's `now`, and by how much the store's clock is ahead of it. What several instances compare goes by the store's.
local now = number()
local ahead = 0
if arg() == 'store' then
  local time = redis.call('TIME')
  ahead = time[1] * 1000 + math.floor(time[2] / 1000) - now
  now = now + ahead
end
