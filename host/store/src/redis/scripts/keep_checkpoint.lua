-- Stores a checkpoint of the audit log, in the place of the one before it.
local sequence = number()
local key = P .. 'audit:checkpoint'
if tonumber(redis.call('HGET', key, 'sequence') or 0) + 1 ~= sequence then
  return unchanged('conflict')
end
redis.call('HSET', key, 'sequence', digits(sequence), 'note', arg(), 'state', arg())
return done('done')
