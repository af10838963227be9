-- Of each target, how many dispatches wait, since when the oldest does, and how many are dead.
local found = {}
for at, target in ipairs(redis.call('SMEMBERS', P .. 'disptargets')) do
  local waiting = P .. 'dispwait:' .. target
  found[at] = { target, redis.call('ZCARD', waiting), redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2] or false,
    redis.call('ZCARD', P .. 'dispdead:' .. target) }
end
return found
