-- The source does not say that a missing report is over. ARGV: leader number, report, why ('': it says that it is open), first
-- and longest wait in ms: it doubles each time. Answers 1.
if not same_birth() then return 'reborn' end
if not leads('poller', ARGV[3]) then return 'deposed' end
local report, key = ARGV[4], P .. 'report:' .. ARGV[4]
if not redis.call('ZSCORE', P .. 'missing', report) then return 1 end
local asked = redis.call('HINCRBY', key, 'asked', 1)
redis.call('HSET', key, 'missing_why', ARGV[5])
touch_all(report)
redis.call('ZADD', P .. 'missing', int(now + math.min(tonumber(ARGV[6]) * 2 ^ math.min(asked - 1, 20), tonumber(ARGV[7]))), report)
return 1
