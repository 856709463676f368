-- The source's request budget: a sliding window of 60 s. ARGV: kind ('listing' or 'detail'), requests per minute, unique id
-- of this request. Answers 0 (go), or how many ms to wait before asking again.
local all, detail = P .. 'budget', P .. 'budget:detail'
local limit, window = tonumber(ARGV[4]), 60000
local rest = ahead(redis.call('GET', P .. 'budget:rest'), 900000)
if rest > now then return int(rest - now) end
for _, key in ipairs({all, detail}) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now - window))
  redis.call('ZREMRANGEBYSCORE', key, '(' .. int(now + 1000), '+inf')
end
local function wait_for(key, most)
  if redis.call('ZCARD', key) < most then return 0 end
  local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return math.max(1, tonumber(oldest[2]) + window - now + 1)
end
local wait = wait_for(all, limit)
if ARGV[3] == 'detail' then wait = math.max(wait, wait_for(detail, math.max(1, math.floor(limit / 2)))) end
if wait > 0 then return int(wait) end
redis.call('ZADD', all, int(now), ARGV[5])
redis.call('PEXPIRE', all, 2 * window)
if ARGV[3] == 'detail' then
  redis.call('ZADD', detail, int(now), ARGV[5])
  redis.call('PEXPIRE', detail, 2 * window)
end
return '0'
