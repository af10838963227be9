-- Removes the oldest requests of a lineage, with all that belongs to them, unless anything has changed since that was decided.
local lineage = arg()
local newest = arg()
local archive = arg()
local effects = {}
for at = 1, number() do
  effects[at] = arg()
end
local slots = {}
for at = 1, number() do
  slots[at] = arg()
end
local removed = {}
local can_go = (redis.call('ZREVRANGE', P .. 'lin:' .. lineage, 0, 0)[1] or lineage) == newest
for at = 1, number() do
  local id, version, events = arg(), arg(), number()
  removed[at] = { id = id, events = events }
  local row = redis.call('HMGET', P .. 'r:' .. id, 'v', 'end')
  local claim = redis.call('HGET', P .. 'archiving', id)
  local holder = string.match(claim or '', '^(%S+) ')
  can_go = can_go and row[1] == version and row[2] and (not holder or holder == archive)
end
if not can_go then
  return unchanged('conflict')
end

local function forget_post(message)
  local channel = redis.call('HGET', P .. 'post:' .. message, 'channel')
  if channel then
    redis.call('DEL', P .. 'post:' .. message)
    forget_refresh(message, channel)
  end
end

local targets = redis.call('SMEMBERS', P .. 'disptargets')
for _, it in ipairs(removed) do
  local id = it.id
  redis.call('DEL', P .. 'r:' .. id)
  redis.call('ZREM', P .. 'ids', id)
  redis.call('ZREM', P .. 'ended', id)
  redis.call('ZREM', P .. 'lin:' .. lineage, id)
  redis.call('HDEL', P .. 'archiving', id)
  for _, effect in ipairs(effects) do
    local entry = id .. ':' .. effect
    local waits = redis.call('HMGET', P .. 'ob:' .. entry, 'urgency', 'channel')
    if waits[1] then
      redis.call('DEL', P .. 'ob:' .. entry)
      displace(entry, waits[1], waits[2])
      redis.call('ZREM', P .. 'waiting', entry)
    end
  end
  for _, target in ipairs(targets) do
    if redis.call('EXISTS', dispatch_key(id .. ':' .. target)) == 1 then
      dispatch_goes(id .. ':' .. target, target)
    end
  end
  for _, slot in ipairs(slots) do
    forget_post(id .. ':' .. slot)
  end
  -- Each approval with edits can have a notice.
  for place = 0, it.events - 1 do
    forget_post(id .. ':replaced_' .. digits(place))
  end
end
records()
return done('done')
