-- Counts requests among the open ones of their caller, unless there are too many besides those that give way to it; says of
-- each what became of it. No operation id: a request is counted by its id.
local places = places_of(TAG, arg())
local answers = {}
for at = 1, number() do
  local id, most = arg(), limits()
  local giving_way, of_its_action = 0, 0
  for _ = 1, number() do
    local counted = redis.call('HGET', places.ids, arg())
    if counted then
      giving_way = giving_way + 1
      if counted:match(' (.*)$') == most.action then
        of_its_action = of_its_action + 1
      end
    end
  end
  local answer = standing(places, id, most, giving_way, of_its_action)
  if answer == 'room' then
    answer = occupy(places, id, most.action) and 'new' or 'had'
  end
  answers[at] = answer
end
return answers
