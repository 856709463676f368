-- Notes that a session is in use, unless it ended meanwhile. ARGV: digest of its id, seconds until it ends unused.
local key = P .. 'page:session:' .. ARGV[3]
if redis.call('EXISTS', key) == 0 then return 0 end
redis.call('HSET', key, 'seen', int(now))
return redis.call('EXPIRE', key, ARGV[4])
