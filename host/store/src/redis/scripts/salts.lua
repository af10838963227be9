-- Up to `limit` salts of requests with ids after `after`, by id.
local after = arg()
local limit = number()
local found = {}
while #found < limit do
  local ids = redis.call('ZRANGEBYLEX', P .. 'ids', '(' .. after, '+', 'LIMIT', 0, math.min(limit, 1000))
  if #ids == 0 then
    break
  end
  for _, id in ipairs(ids) do
    local salt = redis.call('HMGET', P .. 'r:' .. id, 'sk', 'salt')
    if #found < limit and (salt[1] or salt[2]) then
      found[#found + 1] = { id, salt[1], salt[2] }
    end
    after = id
  end
end
return found
