-- Says of a version of a request that it is confirmed, and announces it. No operation id: saying it twice does no harm.
local id = arg()
local origin = arg()
local version = arg()
local row = P .. 'r:' .. id
local before = redis.call('HMGET', row, 'v', 'c')
if before[1] and tonumber(before[1]) >= tonumber(version) and tonumber(before[2] or 0) < tonumber(version) then
  redis.call('HSET', row, 'c', version)
  redis.call('SPUBLISH', TAG, origin .. ' request ' .. id .. ' ' .. version)
end
