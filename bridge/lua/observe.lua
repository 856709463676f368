-- Writes the snapshot of a report that a connector takes, or that is over, makes the deliveries it lacks, and heals those it has
-- where nothing changed. ARGV: leader number, report, digest, snapshot,
-- organization ('' unknown), severity, urgency rank, JSON [[connector, reference], …], over (1: the source says that it is over,
-- so no delivery is made), adopt (1: deliveries are made all the same, but only to take
-- existing tickets over), when the report was notified in ms ('' unknown).
-- Answers the connectors that are new to it.
if not same_birth() then return 'reborn' end
if not leads('poller', ARGV[3]) then return 'deposed' end
local report, digest, snapshot, organization, severity = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local rank, connectors, over, adopt = tonumber(ARGV[9]), cjson.decode(ARGV[10]), ARGV[11] == '1', ARGV[12] == '1'
local key = P .. 'report:' .. report
local changed = redis.call('HGET', key, 'digest') ~= digest
if changed and over and #connectors == 0 and redis.call('EXISTS', key) == 0 then return {} end -- nobody will ask for it
if changed then
  redis.call('HINCRBY', key, 'version', 1)
  redis.call('HSET', key, 'digest', digest, 'snapshot', snapshot, 'organization', organization, 'severity', severity,
    'over', over and 1 or 0)
  redis.call('HSET', key, 'sent_at', ARGV[13])
  if redis.call('HSETNX', key, 'seen_at', int(now)) == 1 and not over and not delivered(report, connectors) then
    count_report(severity)
  end
end
if over then
  redis.call('HSETNX', key, 'over_at', int(now))
  redis.call('ZREM', P .. 'open', report)
  redis.call('ZREM', P .. 'missing', report)
  redis.call('HDEL', key, 'missing_why', 'asked')
  rank = rank + 3 -- no end is as urgent as what is open
else
  redis.call('HDEL', key, 'over_at')
  listed(report)
end
local added, order = {}, int(rank * 1e13 + num(redis.call('HGET', key, 'seen_at')))
for _, pair in ipairs(connectors) do
  local connector, reference = pair[1], pair[2]
  local delivery = delivery_key(connector, report)
  local its = redis.call('HMGET', delivery, 'state', 'owner', 'kind', 'adopt')
  if not its[1] then
    if not over or adopt then
      deliver(connector, report, reference, order, organization, severity)
      if over then redis.call('HSET', delivery, 'adopt', 1) end
      added[#added + 1] = connector
    end
  elseif changed then
    redis.call('HSET', delivery, 'order', order, 'organization', organization, 'severity', severity)
    touch(connector, report)
    if its[4] and not over then redis.call('HDEL', delivery, 'adopt') end
    local told = its[1] == 'created' or its[1] == 'closed'
    if (told and not its[2]) or (its[1] == 'pending' and its[3] == 'quiet') then
      due_now(connector, report)
    elseif redis.call('ZSCORE', P .. 'ready:' .. connector, report) then
      schedule(connector, report, now)
    end
  elseif not over then
    heal(connector, report)
  end
end
if #added > 0 or changed then wake() end
return added
