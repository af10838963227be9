-- Appends to a partition of the audit log, and tells the number of the last entry.
records()
return done(redis.call('GET', P .. 'audit:n'))
