-- Stores outbox entries of another store, unclaimed. Tells of each whether it is new (1), the same (0), or another one (x).
local outcomes = {}
for at = 1, number() do
  local entry = arg()
  local revision, attempts, since, urgency, channel, ready_at = arg(), arg(), arg(), arg(), arg(), arg()
  local key = P .. 'ob:' .. entry
  local before = redis.call('HMGET', key, 'revision', 'attempts', 'since', 'urgency', 'channel')
  if before[1] then
    local same = before[1] == revision and before[2] == attempts and before[3] == since and before[4] == urgency
      and before[5] == channel
    outcomes[at] = same and '0' or 'x'
  else
    redis.call('HSET', key, 'revision', revision, 'attempts', attempts, 'since', since, 'urgency', urgency,
      'channel', channel)
    place(entry, urgency, channel, ready_at)
    redis.call('ZADD', P .. 'waiting', since, entry)
    outcomes[at] = '1'
  end
end
return done(table.concat(outcomes))
