-- What came of a claimed notice. ARGV: cause, '1' when it said that the cause is over, owner token, problem ('': it was
-- sent), ms until the next attempt, what the notice knew of: everything up to this time (ms).
-- Answers 1, or 0 when another process owns it by now.
local cause, over, key = ARGV[3], ARGV[4] == '1', P .. 'notice:' .. ARGV[3]
if redis.call('HGET', key, 'owner') ~= ARGV[5] then return 0 end
redis.call('HDEL', key, 'owner', 'lease_until')
if ARGV[6] ~= '' then
  redis.call('HINCRBY', key, 'failures', 1)
  redis.call('HSET', key, 'problem', ARGV[6], 'next_at', int(now + tonumber(ARGV[7])))
elseif over then
  redis.call('DEL', key)
  redis.call('SREM', P .. 'notices', cause)
else
  redis.call('HDEL', key, 'failures', 'problem', 'next_at')
  redis.call('HSET', key, 'told_at', ARGV[8])
  redis.call('HINCRBY', key, 'number', 1)
end
return 1
