-- May somebody try a password now? Counted before it is looked at, so that many at once are counted too. ARGV: the lane, ''
-- or the digest of a device that logged in before, free attempts, longest wait (ms), attempts a minute of all unknown ones (0:
-- it is not one of them), seconds that a lane is remembered, unique id of this attempt. Answers how many ms to wait (0: go on),
-- and how many the next attempt waits if this one fails.
local lane, minute = P .. 'page:attempts:' .. ARGV[3], P .. 'page:attempts'
local free, longest, most, kept = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local known = ARGV[4] ~= '' and redis.call('EXISTS', P .. 'page:device:' .. ARGV[4]) == 1
-- A device that logged in before waits for itself alone.
if known then lane = P .. 'page:attempts:device:' .. ARGV[4] end
local fields = redis.call('HMGET', lane, 'count', 'until')
local until_ = ahead(fields[2], longest)
if until_ > now then return {int(until_ - now), 0} end
if not known and most > 0 then
  redis.call('ZREMRANGEBYSCORE', minute, '-inf', int(now - 60000))
  redis.call('ZREMRANGEBYSCORE', minute, '(' .. int(now + 1000), '+inf')
  if redis.call('ZCARD', minute) >= most then
    return {int(math.max(1000, tonumber(redis.call('ZRANGE', minute, 0, 0, 'WITHSCORES')[2]) + 60000 - now)), 0}
  end
  redis.call('ZADD', minute, int(now), ARGV[9])
  redis.call('EXPIRE', minute, 120)
end
local count = num(fields[1]) + 1
local wait = 0
if count >= free then wait = math.min(longest, 1000 * 2 ^ math.min(30, count - free)) end
redis.call('HSET', lane, 'count', count, 'until', int(now + wait))
redis.call('EXPIRE', lane, kept)
return {0, int(wait)}
