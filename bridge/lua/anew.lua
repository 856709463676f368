-- A report is open again and its ticket is not taken up again: a new one is to be made. ARGV: report, connector, owner token, the
-- new ticket's reference. The former ticket stays known. Answers 1, or 0 when it is not the owner any more.
local report, connector = ARGV[3], ARGV[4]
local key = delivery_key(connector, report)
local delivery = hash(key)
if delivery.owner ~= ARGV[5] then return 0 end
if delivery.reference == ARGV[6] then return 1 end -- this is repeated
if delivery.ticket_id then
  redis.call('HSET', key, 'former',
    cjson.encode({delivery.ticket_id, delivery.ticket_number or '', delivery.ticket_url or '', delivery.reference}))
end
local todo = {}
for _, item in ipairs(cjson.decode(delivery.todo or '[]')) do -- a comment that came during this turn is for the new ticket
  if string.sub(item, 1, 8) == 'comment-' then todo[#todo + 1] = item end
end
redis.call('HSET', key, 'todo', #todo > 0 and cjson.encode(todo) or '[]', 'reference', ARGV[6], 'tickets', num(delivery.tickets or 1) + 1, 'reason', '')
redis.call('HDEL', key, 'ticket_id', 'ticket_number', 'ticket_url', 'other_ticket', 'told', 'considered', 'facts', 'statuses', 'ended_at',
  'ends', 'plan', 'planned_at', 'remark', 'recorded_at', 'creating_at', 'failures', 'next_at', 'kind')
redis.call('HDEL', P .. 'report:' .. report, 'facts:' .. connector)
redis.call('DEL', P .. 'progress:' .. report .. ':' .. connector)
set_state(connector, report, 'pending')
happened(connector, report, 'continued', ARGV[6])
return 1
