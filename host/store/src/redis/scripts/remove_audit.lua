-- Removes the oldest entries of a partition of the audit log, up to a number.
local through = number()
local last = digits(through) .. '-0'
for _, entry in ipairs(redis.call('XRANGE', P .. 'audit', '-', last)) do
  -- Whatever request is found, only numbers up to the last one are taken off its list.
  local request = string.match(entry[2][2], '"requestId":"([%w_]+)"')
  local list = P .. 'audit:of:' .. (request or '')
  while request and tonumber(redis.call('LINDEX', list, 0) or through + 1) <= through do
    redis.call('LPOP', list)
  end
end
redis.call('XTRIM', P .. 'audit', 'MINID', digits(through + 1) .. '-0')
-- The blocks of which nothing is left.
local block = math.floor(through / BLOCK) - 1
while block >= 0 and redis.call('ZREM', P .. 'audit:from', digits(block)) == 1 do
  redis.call('ZREM', P .. 'audit:to', digits(block))
  block = block - 1
end
return done('done')
