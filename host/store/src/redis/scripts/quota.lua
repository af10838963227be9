-- The requests of a caller that count as open, in the partition that the caller's name leads to, whose tag is `home`.
local function places_of(home, caller)
  return { ids = home .. ':quota:' .. caller, counts = home .. ':quotan:' .. caller }
end

-- The limits of a request's caller, as they are sent.
local function limits()
  local action, in_all, of_action = arg(), arg(), arg()
  return { action = action, in_all = tonumber(in_all), of_action = tonumber(of_action) }
end

-- Whether there is room for a request: `had` if it has its place. As many as `giving_way` give way to it, `of_its_action` of
-- them requests of its action.
local function standing(places, id, most, giving_way, of_its_action)
  local is_full = most.in_all and redis.call('HLEN', places.ids) - giving_way >= most.in_all
    or most.of_action
      and tonumber(redis.call('HGET', places.counts, most.action) or 0) - of_its_action >= most.of_action
  if not is_full then
    return 'room'
  end
  return redis.call('HEXISTS', places.ids, id) == 1 and 'had' or 'full'
end

-- Counts a request as open; false if it is counted already.
local function occupy(places, id, action)
  local is_new = redis.call('HSETNX', places.ids, id, redis.call('TIME')[1] .. ' ' .. action) == 1
  if is_new then
    redis.call('HINCRBY', places.counts, action, 1)
  end
  return is_new
end

-- A request is not, or no longer, open.
local function vacate(places, id)
  local reserved = redis.call('HGET', places.ids, id)
  if not reserved then
    return
  end
  local action = string.match(reserved, '^%d+ (.*)$')
  redis.call('HDEL', places.ids, id)
  if redis.call('HINCRBY', places.counts, action, -1) <= 0 then
    redis.call('HDEL', places.counts, action)
  end
end
