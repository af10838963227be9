-- An entry is a hash; what is ready is found by urgency, channel and the time from which on it is ready.
-- 0: the request has ended. 1: it is new, or escalated. 2: it has changed. 3: it has ended before anything was posted.
local ENDED, UNSEEN = 0, 3
-- What is postponed for longer than this was postponed before the clock was set back.
local LONGEST_WAIT_MS = 1200000

local function ready_key(urgency, channel)
  return P .. 'ready:' .. urgency .. ':' .. channel
end

local function place(entry, urgency, channel, ready_at)
  redis.call('ZADD', ready_key(urgency, channel), ready_at, entry)
  redis.call('SADD', P .. 'readych:' .. urgency, channel)
end

local function displace(entry, urgency, channel)
  local key = ready_key(urgency, channel)
  redis.call('ZREM', key, entry)
  if redis.call('EXISTS', key) == 0 then
    redis.call('SREM', P .. 'readych:' .. urgency, channel)
  end
end

-- Whether a request has no main message, nor a worker that may be about to post it.
-- INVARIANT: a worker claims the entry, loads the request, and stores that the message may exist before it posts it.
local function is_unseen(id)
  return redis.call('EXISTS', P .. 'post:' .. id .. ':main') == 0
    and redis.call('HEXISTS', P .. 'ob:' .. id .. ':show_request', 'claim') == 0
end

-- Adds the effects of a version of a request. An entry is ready at once, whatever the clock says; one that is claimed stays
-- claimed: its worker finishes the old revision, and that makes it ready again.
local function enqueue(id, version, since)
  for _ = 1, number() do
    local entry = id .. ':' .. arg()
    local urgency = number()
    local channel = arg()
    local key = P .. 'ob:' .. entry
    local before = redis.call('HMGET', key, 'urgency', 'channel', 'since', 'claim')
    if urgency == ENDED and is_unseen(id) then
      urgency = UNSEEN
    end
    local ready_at, first = 0, since
    if before[1] then
      local urgency_before = tonumber(before[1])
      channel = before[2]
      first = math.min(since, tonumber(before[3]))
      if before[4] then
        ready_at = redis.call('ZSCORE', ready_key(urgency_before, channel), entry) or 0
      end
      displace(entry, urgency_before, channel)
      -- The message of an ended request that nobody saw is not posted, whatever is done with its approval: its entry
      -- keeps that urgency.
      if urgency ~= UNSEEN then
        urgency = math.min(urgency, urgency_before)
      end
    end
    redis.call('HSET', key, 'revision', version, 'attempts', 0, 'since', digits(first), 'urgency', urgency,
      'channel', channel)
    place(entry, urgency, channel, ready_at)
    redis.call('ZADD', P .. 'waiting', first, entry)
  end
end

-- When an entry is ready, and whether it is now.
local function readiness(entry, urgency, channel, now)
  local at = redis.call('ZSCORE', ready_key(urgency, channel), entry)
  at = tonumber(at or 0)
  return at <= now or at > now + LONGEST_WAIT_MS
end
