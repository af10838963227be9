-- Gives a lease back, if it is still the holder's.
local key = P .. 'lease:' .. arg()
if redis.call('GET', key) == arg() then
  redis.call('DEL', key)
end
