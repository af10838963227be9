-- Which requests count as open ones of a caller, of one action or of all: each with how many seconds ago it was reserved.
local seconds = redis.call('TIME')[1]
local caller, action = arg(), arg()
local fields = redis.call('HGETALL', P .. 'quota:' .. caller)
local found = {}
for at = 1, #fields, 2 do
  local since, of = string.match(fields[at + 1], '^(%d+) (.*)$')
  if action == '' or of == action then
    -- A server that took over may have a clock that is behind.
    found[#found + 1] = { fields[at], digits(math.max(0, seconds - since)) }
  end
end
return found
