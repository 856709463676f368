-- Becomes or stays the leader of a role. ARGV: role, candidate, lease in ms. Answers the leader's number, or 0.
local key, fence = P .. 'leader:' .. ARGV[3], P .. 'fence:' .. ARGV[3]
local leader = redis.call('GET', key)
if leader == ARGV[4] then
  redis.call('PEXPIRE', key, ARGV[5])
  return num(redis.call('GET', fence))
end
if leader then return 0 end
redis.call('SET', key, ARGV[4], 'PX', ARGV[5])
return redis.call('INCR', fence)
