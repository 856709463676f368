-- Becomes or stays the leader of a role. ARGV: role, candidate, lease in ms. Answers the leader's number, or 0.
local key, fence, lease = P .. 'leader:' .. ARGV[3], P .. 'fence:' .. ARGV[3], tonumber(ARGV[5])
local leader, left = redis.call('GET', key), redis.call('PTTL', key)
if leader == ARGV[4] then
  redis.call('PEXPIRE', key, lease)
  return num(redis.call('GET', fence))
end
-- A lease longer than a lease comes from a clock that jumped; its holder, if it lives, learns that it was deposed.
if leader and left <= lease then return 0 end
redis.call('SET', key, ARGV[4], 'PX', lease)
-- The number also rises when the store was lost, or a leader from before that would pass for the new one.
local number = math.max(num(redis.call('GET', fence)) + 1, now)
redis.call('SET', fence, int(number))
return number
