-- An event came by webhook. ARGV: digest of its id, token of this request, ms for which a repetition is refused, whether a
-- listing tells more of it (1 or 0), report ('' none), its digest, snapshot, organization ('' unknown), severity, urgency
-- rank, JSON [[connector, reference], …] of the deliveries that it is to have, a comment ('' none), ms for which that is
-- kept, JSON of all connectors' names, when the report was notified in ms ('' unknown). Answers 'replayed', or 'new', 'known' or 'noted' for what is known of the report.
-- No leader number: a report that the store knows keeps the snapshot and the deliveries that the poller gave it.
if not same_birth() then return 'reborn' end
local event, token, report, organization, severity = ARGV[3], ARGV[4], ARGV[7], ARGV[10], ARGV[11]
local mark = P .. 'webhook:' .. event
-- The same request once more, because its answer was lost, is no repetition.
if redis.call('SET', mark, token, 'NX', 'PX', ARGV[5]) then
  count('webhook:taken')
elseif redis.call('GET', mark) ~= token then
  return 'replayed'
end
redis.call('SET', P .. 'webhook_taken', int(now))
if ARGV[6] == '1' then redis.call('SET', P .. 'poll:wanted', int(now), 'PX', LONGEST_WAIT) end
if report == '' then return 'noted' end

local key, connectors = P .. 'report:' .. report, cjson.decode(ARGV[13])
local known = redis.call('EXISTS', key) == 1
if not known and #connectors > 0 then
  redis.call('HSET', key, 'version', 1, 'digest', ARGV[8], 'snapshot', ARGV[9], 'organization', organization, 'severity',
    severity, 'seen_at', int(now), 'sent_at', ARGV[17])
  if not delivered(report, connectors) then count_report(severity) end
  redis.call('ZADD', P .. 'open', int(now), report)
  for _, pair in ipairs(connectors) do
    if redis.call('EXISTS', delivery_key(pair[1], report)) == 0 then
      deliver(pair[1], report, pair[2], int(tonumber(ARGV[12]) * 1e13 + now), organization, severity)
    end
  end
end

-- Each comment is a thing to do of its own, so that one that comes while another is being told is not taken for done.
local comments = P .. 'comments:' .. report
if ARGV[14] ~= '' and redis.call('HSETNX', comments, event, string.format('%015.0f ', now) .. ARGV[14]) == 1 then
  redis.call('PEXPIRE', comments, ARGV[15])
  for _, connector in ipairs(cjson.decode(ARGV[16])) do
    add_todo(connector, report, string.format('comment-%015.0f-', now) .. event)
  end
end
wake()
return known and 'known' or #connectors > 0 and 'new' or 'noted'
