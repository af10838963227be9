for _ = 1, number() do
  local digest = arg()
  redis.call('SADD', P .. 'sig:' .. digest, arg())
end
return done('done')
