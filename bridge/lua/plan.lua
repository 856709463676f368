-- An owner is about to tell a ticket something. ARGV: report, connector, owner token, plan as JSON, whether a request for it may
-- be out from now on (1 or 0). Answers 1, 0 when it is not the owner any more, -1 when the store was born anew.
if not same_birth() then return -1 end
local key = delivery_key(ARGV[4], ARGV[3])
adjust(ARGV[4], ARGV[3])
local its = redis.call('HMGET', key, 'owner', 'lease_until')
if its[1] ~= ARGV[5] or num(its[2]) <= now then return 0 end
redis.call('HSET', key, 'plan', ARGV[6], 'planned_at', ARGV[7] == '1' and int(now) or 0)
return 1
