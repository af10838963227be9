-- Stores the state of messages of another store. Tells of each whether it is new (1), the same (0), or another one (x).
local outcomes = {}
for at = 1, number() do
  local message, revision, channel, refresh_at, body = arg(), arg(), arg(), arg(), arg()
  local key = P .. 'post:' .. message
  local before = redis.call('HMGET', key, 'revision', 'channel', 'body')
  if before[1] then
    local same = before[1] == revision and before[2] == channel and before[3] == body
    outcomes[at] = same and '0' or 'x'
  else
    redis.call('HSET', key, 'revision', revision, 'channel', channel, 'body', body)
    if refresh_at ~= '' then
      keep_refresh(message, channel, refresh_at)
    end
    outcomes[at] = '1'
  end
end
return done(table.concat(outcomes))
