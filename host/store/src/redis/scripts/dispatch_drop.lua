-- Removes some dispatches of a target, dead letters included.
local target = arg()
local most = number()
local dropped = 0
for _, index in ipairs({ P .. 'dispwait:', P .. 'dispdead:' }) do
  for _, it in ipairs(redis.call('ZRANGE', index .. target, 0, most - dropped - 1)) do
    dispatch_goes(it, target)
    dropped = dropped + 1
  end
  if dropped >= most then
    break
  end
end
return done(dropped)
