-- Writes one report's snapshot and makes the deliveries it lacks. ARGV: leader number, report, digest, snapshot,
-- organization ('' unknown), severity, urgency rank, JSON [[connector, reference], …]. Answers the connectors that are new to it.
if not same_birth() then return 'reborn' end
if not leads('poller', ARGV[3]) then return 'deposed' end
local report, digest, snapshot, organization, severity = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local rank, connectors = tonumber(ARGV[9]), cjson.decode(ARGV[10])
local key = P .. 'report:' .. report
local changed = redis.call('HGET', key, 'digest') ~= digest
if changed then
  redis.call('HINCRBY', key, 'version', 1)
  redis.call('HSET', key, 'digest', digest, 'snapshot', snapshot, 'organization', organization, 'severity', severity)
  redis.call('HSETNX', key, 'seen_at', int(now))
end
redis.call('ZADD', P .. 'open', int(now), report)
local added, order = {}, int(rank * 1e13 + num(redis.call('HGET', key, 'seen_at')))
for _, pair in ipairs(connectors) do
  local connector, reference = pair[1], pair[2]
  local delivery = delivery_key(connector, report)
  if redis.call('EXISTS', delivery) == 0 then
    redis.call('HSET', delivery, 'reference', reference, 'order', order, 'created_at', int(now), 'organization', organization,
      'severity', severity, 'attempts', 0)
    set_state(connector, report, 'pending')
    schedule(connector, report, now)
    added[#added + 1] = connector
  elseif changed then
    redis.call('HSET', delivery, 'order', order, 'organization', organization, 'severity', severity)
    local its = redis.call('HMGET', delivery, 'state', 'owner')
    if (its[1] == 'created' and not its[2]) or redis.call('ZSCORE', P .. 'ready:' .. connector, report) then
      schedule(connector, report, now)
    end
  end
end
if #added > 0 or changed then wake() end
return added
