-- A ticket exists: recorded whoever brings it, also an owner whose lease has lapsed. ARGV: report, connector, owner token,
-- ticket id, number, url, version told, todo (JSON list, comments apart), reference, organization, severity, order, remark, proven (1 or 0),
-- keep (1: the owner goes on with what is to do), id of a second ticket found with it or '', facts told ('' unknown), id of the
-- status it was made with ('' unknown), found (1: it was found, not made just now), what the turn did before (see `remember_all`).
-- Of two tickets the lower id is kept, the other is named. Answers the id kept.
local report, connector, token, id, number, url = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local key = delivery_key(connector, report)
awake(key, report)
local delivery, exists = hash(key)
if not exists then
  redis.call('HSET', key, 'reference', ARGV[11], 'order', ARGV[14], 'created_at', int(now), 'organization', ARGV[12],
    'severity', ARGV[13], 'attempts', 1)
  delivery = hash(key)
end

local function lower(a, b)
  if tonumber(a) and tonumber(b) then return tonumber(a) < tonumber(b) end
  return a < b
end

remember_all(connector, report, token, cjson.decode(ARGV[22]))
local how, shown = ARGV[21] == '1' and 'found' or 'created', number ~= '' and number or id
-- Is this what the bridge made, and the first ticket of its report?
local first = not delivery.ticket_id and not delivery.former and (how == 'created' or delivery.creating_at)
if not delivery.ticket_id or (delivery.ticket_id ~= id and delivery.other_ticket ~= id) then
  happened(connector, report, how, shown)
  if first then
    count_time(connector, 'sent', redis.call('HGET', P .. 'report:' .. report, 'sent_at'))
    count_time(connector, 'seen', delivery.created_at)
  end
elseif delivery.ticket_id == id and number ~= '' and (delivery.ticket_number or '') == '' then
  call_by_number(connector, report, id, number)
end

local todo = {}
for _, item in ipairs(cjson.decode(delivery.todo or '[]')) do todo[item] = true end
for _, item in ipairs(cjson.decode(ARGV[10])) do todo[item] = true end
-- Every comment, also those that came before the delivery was there; and for a ticket that is kept in place of the one it went to.
local known = delivery.ticket_id
if first or (known and lower(id, known) and not delivery.former) then
  local comments = redis.call('HGETALL', P .. 'comments:' .. report)
  for i = 1, #comments, 2 do todo['comment-' .. string.match(comments[i + 1], '^%d*') .. '-' .. comments[i]] = true end
end
local proof = hash(P .. 'proof:' .. connector)
if proof.report == report and proof.state == 'proving' and ARGV[16] ~= '1' then todo['verify'] = true end

if ARGV[18] ~= '' then
  redis.call('HSET', key, 'other_ticket', ARGV[18])
  todo['duplicate'] = true
end
if known and known ~= id then
  local other = lower(known, id) and id or known
  redis.call('HSET', key, 'other_ticket', other)
  todo['duplicate'] = true
  if other == id then id, number, url = known, delivery.ticket_number or '', delivery.ticket_url or '' end
end
if known == id then
  if number == '' then number = delivery.ticket_number or '' end
  if url == '' then url = delivery.ticket_url or '' end
end

local list = {}
for item in pairs(todo) do list[#list + 1] = item end
table.sort(list)
redis.call('HSET', key, 'ticket_id', id, 'ticket_number', number, 'ticket_url', url, 'reason', '',
  'todo', #list > 0 and cjson.encode(list) or '[]')
redis.call('HSETNX', key, 'recorded_at', int(now))
redis.call('HDEL', key, 'doubt_at', 'looked', 'next_at', 'failures', 'lapsed', 'kind')
-- A store that was lost meanwhile counts its versions anew: what was told is one of the past there, whatever its number.
local told = math.min(num(ARGV[9]), num(redis.call('HGET', P .. 'report:' .. report, 'version')))
if ARGV[19] ~= '' and (told > num(delivery.told) or not delivery.told) then
  redis.call('HSET', key, 'told', int(told))
  keep_facts(connector, report, ARGV[19])
elseif told > num(delivery.told) then
  redis.call('HSET', key, 'told', int(told))
end
if ARGV[20] ~= '' then add_status(key, ARGV[20]) end
touch(connector, report)
if delivery.state ~= 'closed' and delivery.state ~= 'handled' and delivery.state ~= 'gone' then
  set_state(connector, report, 'created')
end
if ARGV[15] ~= '' then redis.call('HSET', key, 'remark', ARGV[15]) end
if ARGV[16] == '1' then redis.call('HSET', P .. 'proof:' .. connector, 'state', 'proven') end

if paused_until(connector) <= now then redis.call('DEL', P .. 'pause:' .. connector) end

local keep = ARGV[17] == '1' and delivery.owner == token
if not keep and (not delivery.owner or delivery.owner == token) then
  let_go(key, connector, report)
  if unfinished(connector, report) then
    schedule(connector, report, now)
  else
    unschedule(connector, report)
    rest(connector, report)
  end
end
return id
