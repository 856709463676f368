-- A person is to be told of a cause, or that it is over. ARGV: cause, '1' when it is over, owner token, lease in ms, since
-- when there is the cause, when it last grew, ms that it must have been over, ms between two notices of a cause that grows.
-- Answers {'claimed', notice as a flat list}, or why there is nothing to send: 'told', 'early', 'busy'.
local cause, over, key = ARGV[3], ARGV[4] == '1', P .. 'notice:' .. ARGV[3]
local notice, exists = hash(key)
local owned = ahead(notice.lease_until, LONGEST_WAIT) > now
if over then
  if not exists then return {'told'} end
  if not notice.told_at then -- nobody knows of it, so nobody needs to hear that it is over
    if owned then return {'busy'} end
    redis.call('DEL', key)
    redis.call('SREM', P .. 'notices', cause)
    return {'told'}
  end
  if not notice.over_since then
    redis.call('HDEL', key, 'failures', 'next_at', 'problem')
    redis.call('HSET', key, 'over_since', int(now))
    return {'early'}
  end
  if num(notice.over_since) + tonumber(ARGV[9]) > now then return {'early'} end
else
  if not exists then
    redis.call('HSET', key, 'since', ARGV[7])
    redis.call('SADD', P .. 'notices', cause)
  end
  redis.call('HDEL', key, 'over_since')
  local told_at = math.min(num(notice.told_at), now)
  if notice.told_at and (tonumber(ARGV[8]) <= told_at or told_at + tonumber(ARGV[10]) > now) then return {'told'} end
end
if owned then return {'busy'} end
if ahead(notice.next_at, LONGEST_WAIT) > now then return {'early'} end
redis.call('HSET', key, 'owner', ARGV[5], 'lease_until', int(now + tonumber(ARGV[6])))
return {'claimed', redis.call('HGETALL', key)}
