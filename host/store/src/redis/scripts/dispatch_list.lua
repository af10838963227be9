-- The dispatches that are ready, by target: up to `limit` that were neither claimed nor postponed before, as many that are
-- due, and as many that wait for too long.
local limit = number()
local ranges = { { '0', '0' }, { '1', digits(now) }, { '(' .. digits(now + LONGEST_PAUSE_MS), '+inf' } }
local found = {}
for _, target in ipairs(redis.call('SMEMBERS', P .. 'disptargets')) do
  for range, bounds in ipairs(ranges) do
    local page = redis.call('ZRANGEBYSCORE', P .. 'dispready:' .. target, bounds[1], bounds[2], 'WITHSCORES', 'LIMIT', 0,
      limit)
    for at = 1, #page, 2 do
      found[#found + 1] = { target, range, page[at + 1], page[at] }
    end
  end
end
return found
