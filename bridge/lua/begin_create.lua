-- The last gate before a create request. ARGV: report, connector, owner token, lease in ms, whether creates must be proven
-- findable (1 or 0), longest time a proof may take in ms, what the turn did before (see `remember_all`). Answers {'go'}, {'prove'} (go, but look the ticket up afterwards)
-- or {why not, until in ms}.
if not same_birth() then return {'reborn'} end
local report, connector, token, lease = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local key = delivery_key(connector, report)
adjust(connector, report)
local delivery = hash(key)
if delivery.owner ~= token or num(delivery.lease_until) <= now then return {'lost'} end
if delivery.state ~= 'pending' and delivery.state ~= 'creating' then return {'lost'} end
local hold = ahead(redis.call('HGET', P .. 'meta', 'hold_until'), LONGEST_WAIT)
if hold > now then return {'hold', hold} end
local pause = ahead(paused_until(connector), LONGEST_WAIT)
if pause > now then return {'paused', pause} end
local go = 'go'
if ARGV[7] == '1' then
  local proof = hash(P .. 'proof:' .. connector)
  if proof.state ~= 'proven' and proof.report ~= report then
    local standing = proof.failed or ahead(num(proof.since) + tonumber(ARGV[8]), LONGEST_WAIT) > now
    if proof.report and standing then return {'proving', now + 1000} end
    redis.call('DEL', P .. 'proof:' .. connector)
    redis.call('HSET', P .. 'proof:' .. connector, 'state', 'proving', 'report', report, 'reference', delivery.reference,
      'since', int(now))
  end
  if proof.state ~= 'proven' then go = 'prove' end
end
set_state(connector, report, 'creating')
remember_all(connector, report, token, cjson.decode(ARGV[9]))
if delivery.state ~= 'creating' or delivery.doubt_at then remember(connector, report, 'creating') end -- else this is repeated
redis.call('HDEL', key, 'doubt_at', 'looked', 'next_at')
redis.call('HSET', key, 'lease_until', int(now + lease), 'creating_at', int(now))
redis.call('ZADD', P .. 'slots:' .. delivery.group, int(now + lease), member(connector, report))
schedule(connector, report, now + lease)
return {go}
