-- The stored fields of a request.
local function stored(id)
  local fields = redis.call('HMGET', P .. 'r:' .. id, 'v', 'c', 'body', 'sk', 'salt')
  return { id, unpack(fields, 1, 5) }
end

-- The fingerprint and the request that an idempotency key was first used for, if the key has not expired.
local function idempotent(key, now)
  local value = redis.call('GET', P .. 'idem:' .. key)
  if not value then
    return nil
  end
  local expires, fingerprint, id = string.match(value, '^(%S+) (%S+) (%S+)$')
  if tonumber(expires) <= now or redis.call('EXISTS', P .. 'r:' .. id) == 0 then
    return nil
  end
  return { 'known', fingerprint, unpack(stored(id), 1, 6) }
end
