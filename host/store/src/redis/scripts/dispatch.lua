-- A dispatch is a hash; what is ready is found by target and the time from which on it is ready, what is dead by when it
-- died. What is postponed for longer than this was postponed before the clock was set back.
local LONGEST_PAUSE_MS = 93600000

local function dispatch_key(it)
  return P .. 'disp:' .. it
end

local function dispatch_ready(it, target, ready_at)
  redis.call('ZADD', P .. 'dispready:' .. target, ready_at, it)
  redis.call('SADD', P .. 'disptargets', target)
end

local function dispatch_waits(it, target, since)
  redis.call('ZADD', P .. 'dispwait:' .. target, since, it)
end

local function dispatch_dies(it, target, at)
  redis.call('ZREM', P .. 'dispready:' .. target, it)
  redis.call('ZREM', P .. 'dispwait:' .. target, it)
  redis.call('ZADD', P .. 'dispdead:' .. target, at, it)
  redis.call('SADD', P .. 'disptargets', target)
end

local function dispatch_goes(it, target)
  redis.call('DEL', dispatch_key(it))
  local left = 0
  for _, index in ipairs({ P .. 'dispready:', P .. 'dispwait:', P .. 'dispdead:' }) do
    redis.call('ZREM', index .. target, it)
    left = left + redis.call('EXISTS', index .. target)
  end
  if left == 0 then
    redis.call('SREM', P .. 'disptargets', target)
  end
end

-- Adds the dispatches of a version of a request. A new one is ready whatever the clock says. One that failed keeps its
-- schedule, and one that is held does not.
local function dispatch(id, version, since)
  for _ = 1, number() do
    local target, position = arg(), arg()
    local it = id .. ':' .. target
    local key = dispatch_key(it)
    local before = redis.call('HMGET', key, 'since', 'attempts', 'claim', 'failure')
    redis.call('HSET', key, 'revision', version)
    if not before[1] then
      redis.call('HSET', key, 'position', position, 'attempts', 0, 'since', digits(since))
      dispatch_waits(it, target, digits(since))
      dispatch_ready(it, target, 0)
    else
      local first = digits(math.min(since, tonumber(before[1])))
      redis.call('HSET', key, 'since', first)
      if not before[4] then
        dispatch_waits(it, target, first)
        if before[2] == '0' and not before[3] then
          dispatch_ready(it, target, 0)
        end
      end
    end
  end
end
