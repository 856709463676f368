-- A running process finds the store's birth mark changed: Redis came back empty. ARGV: new mark, ms to hold creates back.
-- What is found is adopted at once, but nothing is created for a while. Answers the mark that now holds.
redis.call('HSETNX', P .. 'meta', 'birth', ARGV[3])
redis.call('HSETNX', P .. 'meta', 'born_at', int(now))
if redis.call('HGET', P .. 'meta', 'birth') ~= ARGV[2] then
  redis.call('HSET', P .. 'meta', 'reborn_at', int(now), 'hold_until', int(now + tonumber(ARGV[4])))
end
return redis.call('HGET', P .. 'meta', 'birth')
