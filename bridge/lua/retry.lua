-- Makes one delivery due now, for a person. ARGV: report, connector. What is in doubt is only looked up; what is created
-- is left; what was marked as handled is taken up again. Answers the state before, '' when there is no such delivery, or 'forgotten'
-- when it has no ticket and its report is over and not in the store any more: a ticket could neither say what it is about nor be
-- closed, so none is made.
local report, connector = ARGV[3], ARGV[4]
local key = delivery_key(connector, report)
awake(key, report)
adjust(connector, report)
local delivery, exists = hash(key)
if not exists then return '' end
local state = delivery.state
if state ~= 'pending' and state ~= 'creating' and state ~= 'rejected' and state ~= 'held' and state ~= 'handled' then return state end
if delivery.owner then return state end -- it is being worked on, or its lapsed lease makes it due anyway
if state ~= 'pending' and state ~= 'creating' and not delivery.ticket_id and redis.call('HEXISTS', P .. 'report:' .. report, 'version') == 0
  and not redis.call('ZSCORE', P .. 'open', report) and not redis.call('ZSCORE', P .. 'missing', report) then
  return 'forgotten'
end
happened(connector, report, 'retried')
if state == 'handled' and delivery.ticket_id then
  set_state(connector, report, delivery.gone and 'gone' or 'created')
  redis.call('HSET', key, 'reason', '')
  redis.call('HDEL', key, 'gone')
  if unfinished(connector, report) then due_now(connector, report) end
  wake()
  return state
end
if state == 'handled' then redis.call('HSET', key, 'reason', '') end
-- Nobody watched the clock for what was not scheduled: how long ago the doubt began is not known any more.
if state == 'handled' and delivery.doubt_at then redis.call('HSET', key, 'doubt_at', int(now), 'looked', 0) end
if state == 'held' or state == 'rejected' or state == 'handled' then
  set_state(connector, report, delivery.doubt_at and 'creating' or 'pending')
  local progress = P .. 'progress:' .. report .. ':' .. connector
  for field, value in pairs((hash(progress))) do
    if string.sub(value, 1, 8) == 'sending:' then redis.call('HDEL', progress, field) end
  end
end
redis.call('HDEL', key, 'failures', 'lapsed')
redis.call('HSET', key, 'next_at', int(now))
schedule(connector, report, now)
wake()
return state
