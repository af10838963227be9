-- Whether requests are open, ended or unknown.
local found = {}
for at = 1, number() do
  local row = P .. 'r:' .. arg()
  found[at] = redis.call('HEXISTS', row, 'kind') == 1 and 'open' or redis.call('EXISTS', row) == 1 and 'ended' or 'unknown'
end
return found
