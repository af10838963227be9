-- A change is applied once: whoever has lost the reply sends it again with the same operation id, and gets the same outcome.
-- The outcome is written in any case, so that a WAIT that follows has something to wait for.
local operation = P .. 'op:' .. arg()
-- Whether a WAIT follows. If so, the change is announced after it; else here.
local waits = arg() == 'wait'
local known = redis.call('GET', operation)
if known then
  redis.call('PEXPIRE', operation, 120000)
  return known
end

local function done(outcome)
  redis.call('SET', operation, outcome, 'PX', 120000)
  return outcome
end

-- Nothing was stored. What made it so may not be confirmed yet, and a WAIT that follows must wait for that.
local function unchanged(outcome)
  if waits then
    redis.call('SET', P .. 'mark', '1')
  end
  return outcome
end

local function announce(message)
  if not waits then
    redis.call('SPUBLISH', TAG, message)
  end
end
