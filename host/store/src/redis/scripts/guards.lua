-- Nonces and idempotency keys are kept for a day after they expired. `expiring` has them by when they expire.
local KEPT_MS = 86400000

local function purge(now, most)
  local keys = redis.call('ZRANGEBYSCORE', P .. 'expiring', '-inf', now - KEPT_MS, 'LIMIT', 0, most)
  for _, key in ipairs(keys) do
    redis.call('DEL', P .. key)
    redis.call('ZREM', P .. 'expiring', key)
  end
  return #keys
end

-- Stores a value until a time. What expired long ago is removed every second (`maintain`), and not here.
local function keep(key, value, expires)
  redis.call('SET', P .. key, value)
  redis.call('ZADD', P .. 'expiring', expires, key)
end

local function has_nonce(digest, now)
  local expires = redis.call('GET', P .. 'once:' .. digest)
  return expires and tonumber(expires) > now
end

-- The nonce of a write: four arguments, of which the first is empty if there is none.
local function nonce()
  local digest = arg()
  if digest == '' then
    return nil
  end
  local excluded_by = arg()
  local now = number()
  return { digest = digest, expires = arg(), repeated = has_nonce(digest, now) or has_nonce(excluded_by, now) }
end

local function keep_nonce(it)
  if it then
    keep('once:' .. it.digest, it.expires, it.expires)
  end
end
