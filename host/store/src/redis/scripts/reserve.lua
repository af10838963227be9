-- Counts requests among the open ones of their caller, unless there are too many besides those that give way to it; says of
-- each what became of it. No operation id: a request is counted by its id.
local caller = arg()
local ids, counts = P .. 'quota:' .. caller, P .. 'quotan:' .. caller
local since = redis.call('TIME')[1]
local answers = {}
for at = 1, number() do
  local id, action, in_all, of_action = arg(), arg(), arg(), arg()
  local giving_way, of_its_action = 0, 0
  for _ = 1, number() do
    local counted = redis.call('HGET', ids, arg())
    if counted then
      giving_way = giving_way + 1
      if counted:match(' (.*)$') == action then of_its_action = of_its_action + 1 end
    end
  end
  local is_full = in_all ~= '' and redis.call('HLEN', ids) - giving_way >= tonumber(in_all)
    or of_action ~= '' and tonumber(redis.call('HGET', counts, action) or 0) - of_its_action >= tonumber(of_action)
  if is_full then
    answers[at] = redis.call('HEXISTS', ids, id) == 1 and 'had' or 'full'
  elseif redis.call('HSETNX', ids, id, since .. ' ' .. action) == 1 then
    redis.call('HINCRBY', counts, action, 1)
    answers[at] = 'new'
  else
    answers[at] = 'had'
  end
end
return answers
