-- A person took care of a delivery that has no ticket, or none any more. ARGV: report, connector, reason. Nothing is done for it
-- until `retry` takes it up again. Answers the state before, 'busy' while a worker is at it, or '' when there is no such delivery.
local report, connector = ARGV[3], ARGV[4]
local key = delivery_key(connector, report)
awake(key, report)
adjust(connector, report)
local delivery, exists = hash(key)
if not exists then return '' end
local state = delivery.state
if state == 'created' or state == 'closed' or state == 'handled' then return state end
if delivery.owner and ahead(delivery.lease_until, LONGEST_LEASE) > now then return 'busy' end
if state == 'creating' and not delivery.doubt_at then -- its owner died; `retry` must not create what that one may have created
  redis.call('HSET', key, 'doubt_at', int(math.min(num(delivery.lease_until or now), now)), 'looked', 0)
end
drop_proof(connector, report)
let_go(key, connector, report)
unschedule(connector, report)
set_state(connector, report, 'handled')
redis.call('HSET', key, 'reason', ARGV[5])
if state == 'gone' then redis.call('HSET', key, 'gone', 1) end -- for `retry`
redis.call('HDEL', key, 'next_at', 'failures', 'lapsed', 'kind')
happened(connector, report, 'handled', ARGV[5])
return state
