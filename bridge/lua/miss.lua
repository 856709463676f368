-- Complete listings no longer show these reports. ARGV: leader number, start of the listings in ms, JSON [report, …].
-- They are to be asked for by themselves, the first time now. Answers how many are new.
if not same_birth() then return 'reborn' end
if not leads('poller', ARGV[3]) then return 'deposed' end
local before, missed = tonumber(ARGV[4]), 0
for _, report in ipairs(cjson.decode(ARGV[5])) do
  local seen = tonumber(redis.call('ZSCORE', P .. 'open', report))
  if seen and (seen < before or seen > now) then
    redis.call('ZREM', P .. 'open', report)
    redis.call('ZADD', P .. 'missing', int(now), report)
    redis.call('HSET', P .. 'report:' .. report, 'last_listed_at', int(math.min(seen, now)))
    missed = missed + 1
  end
end
return missed
