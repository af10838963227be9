-- Stores policy entries and modules by their digests. What is stored already does not change.
for _ = 1, number() do
  local hash = arg()
  redis.call('SETNX', P .. 'entry:' .. hash, arg())
end
for _ = 1, number() do
  local digest = arg()
  local bytes = arg()
  redis.call('SETNX', P .. 'module:' .. digest, bytes)
  redis.call('HSETNX', P .. 'modules', digest, #bytes)
end
return done('done')
