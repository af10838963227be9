-- Stores dispatches of another store, unclaimed. Tells of each whether it is new (1), the same (0), or another one (x).
local outcomes = {}
for at = 1, number() do
  local it, target = arg(), arg()
  local position, revision, attempts, since, ready_at, failure = arg(), arg(), arg(), arg(), arg(), arg()
  local key = dispatch_key(it)
  local before = redis.call('HMGET', key, 'position', 'revision', 'attempts', 'since', 'failure')
  if before[1] then
    local same = before[1] == position and before[2] == revision and before[3] == attempts and before[4] == since
      and (before[5] or '') == failure
    outcomes[at] = same and '0' or 'x'
  else
    redis.call('HSET', key, 'position', position, 'revision', revision, 'attempts', attempts, 'since', since)
    if failure ~= '' then
      redis.call('HSET', key, 'failure', failure)
      dispatch_dies(it, target, ready_at)
    else
      dispatch_waits(it, target, since)
      dispatch_ready(it, target, ready_at)
    end
    outcomes[at] = '1'
  end
end
return done(table.concat(outcomes))
