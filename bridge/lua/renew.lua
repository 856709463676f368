-- Prolongs an owner's lease. ARGV: report, connector, owner token, lease in ms. Answers 1, 0 when it is not the owner, -1 when the store
-- was born anew.
if not same_birth() then return -1 end
local report, connector, token, lease = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local key = delivery_key(connector, report)
local delivery = hash(key)
if delivery.owner ~= token then return 0 end
redis.call('HSET', key, 'lease_until', int(now + lease))
redis.call('ZADD', P .. 'slots:' .. delivery.group, int(now + lease), member(connector, report))
schedule(connector, report, delivery.order, now + lease)
return 1
