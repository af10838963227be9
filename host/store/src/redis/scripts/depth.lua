-- How many outbox entries wait, and since when the oldest does.
return { redis.call('ZCARD', P .. 'waiting'), redis.call('ZRANGE', P .. 'waiting', 0, 0, 'WITHSCORES')[2] or false }
