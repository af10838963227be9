-- Stores requests of another store. Tells of each whether it is new (1), was here and is the same (0), or another one (x).
local outcomes = {}
for at = 1, number() do
  local id = arg()
  local version, body, salt_key, salt = arg(), arg(), arg(), arg()
  local submitted, lineage, depth = number(), arg(), number()
  local kind, due, changed, ended = arg(), arg(), number(), arg()
  local row = P .. 'r:' .. id
  local before = redis.call('HMGET', row, 'v', 'body', 'sk', 'salt')
  if before[1] then
    local same = before[1] == version and before[2] == body and (before[3] or '') == salt_key and (before[4] or '') == salt
    outcomes[at] = same and '0' or 'x'
  else
    redis.call('HSET', row, 'v', version, 'body', body, 'at', digits(submitted))
    if depth > 0 then
      redis.call('HSET', row, 'depth', depth)
      redis.call('ZADD', P .. 'lin:' .. lineage, depth, id)
    end
    if salt_key ~= '' then
      redis.call('HSET', row, 'sk', salt_key, 'salt', salt)
    end
    redis.call('ZADD', P .. 'ids', 0, id)
    -- INVARIANT: a request has a kind, and a due time, exactly if it is open.
    if kind ~= '' then
      -- The place that it takes among those of its caller is kept by another script.
      redis.call('HSET', row, 'kind', kind, 'q', '1')
      redis.call('ZADD', P .. 'due', due, id)
      opened(kind, id, submitted)
    else
      redis.call('HSET', row, 'end', ended)
      redis.call('ZADD', P .. 'ended', changed, id)
    end
    outcomes[at] = '1'
  end
end
return done(table.concat(outcomes))
