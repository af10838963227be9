-- Claims requests for an archive. Tells which are its own: those that no other one has claimed lately.
local archive = arg()
local now = arg()
local long_ago = number()
local own = {}
for _ = 1, number() do
  local id = arg()
  local claim = redis.call('HGET', P .. 'archiving', id)
  local holder, at = string.match(claim or '', '^(%S+) (%S+)$')
  if not holder or holder == archive or tonumber(at) <= long_ago then
    redis.call('HSET', P .. 'archiving', id, archive .. ' ' .. now)
    own[#own + 1] = id
  end
end
return done(table.concat(own, ' '))
