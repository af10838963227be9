-- What is ready, by urgency and channel: up to `limit` that were neither claimed nor postponed before, as many that were,
-- and as many that wait for too long. Each is its range, when it is ready, its key, urgency, channel, revision and since.
local limit = number()
local ranges = { { '0', '0' }, { '1', digits(now) }, { '(' .. digits(now + LONGEST_WAIT_MS), '+inf' } }
local found = {}
for urgency = 0, UNSEEN do
  for _, channel in ipairs(redis.call('SMEMBERS', P .. 'readych:' .. urgency)) do
    for range, bounds in ipairs(ranges) do
      local page = redis.call('ZRANGEBYSCORE', ready_key(urgency, channel), bounds[1], bounds[2], 'WITHSCORES',
        'LIMIT', 0, limit)
      for at = 1, #page, 2 do
        local entry = redis.call('HMGET', P .. 'ob:' .. page[at], 'revision', 'since')
        found[#found + 1] = { range, page[at + 1], page[at], urgency, channel, entry[1], entry[2] }
      end
    end
  end
end
return found
