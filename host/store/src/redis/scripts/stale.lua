-- Messages whose refresh is due, or further ahead than anything is put off: up to `limit` of each channel and range.
local at = number()
local limit = number()
local ranges = { { '0', digits(at) }, { '(' .. digits(at + LONGEST_WAIT_MS), '+inf' } }
local found = {}
for _, channel in ipairs(redis.call('SMEMBERS', P .. 'refreshch')) do
  for range, bounds in ipairs(ranges) do
    local page = redis.call('ZRANGEBYSCORE', refresh_key(channel), bounds[1], bounds[2], 'WITHSCORES', 'LIMIT', 0, limit)
    for place = 1, #page, 2 do
      found[#found + 1] = { channel, range, page[place + 1], page[place] }
    end
  end
end
return found
