-- Up to `limit` of the requests that are due at `now`, by due time and id, after those up to (`from`, `after`).
local now = arg()
local from = number()
local after = arg()
local limit = number()
local found = {}
local skip = 0
while #found < limit * 2 do
  local page = redis.call('ZRANGEBYSCORE', P .. 'due', from, now, 'WITHSCORES', 'LIMIT', skip, math.min(limit, 1000))
  if #page == 0 then
    break
  end
  skip = skip + #page / 2
  for at = 1, #page, 2 do
    if #found < limit * 2 and (tonumber(page[at + 1]) > from or page[at] > after) then
      found[#found + 1] = page[at]
      found[#found + 1] = page[at + 1]
    end
  end
end
return found
