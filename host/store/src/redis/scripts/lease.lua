-- Takes a lease, or renews it. No operation id: whoever has it may take it again.
local key = P .. 'lease:' .. arg()
local holder = arg()
local has = redis.call('GET', key)
if has and has ~= holder then
  return 0
end
redis.call('SET', key, holder, 'PX', arg())
return 1
