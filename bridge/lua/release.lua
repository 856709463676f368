-- An owner ends its turn without a ticket to record. ARGV: report, connector, owner token, JSON of what to write:
-- state, reason, kind (why it waits), delay (ms, absent: nothing more is due), failures, doubt (true: its request may have
-- been carried out just now), looked, considered, done (todo items done), todo (items to add), waiting (items that the delay
-- is for), later (true: those hold up no news of the report), remark, result (true: the turn came to an answer, lapsed leases
-- no longer count), version (of the report that the delay is for: a newer one is due now), events (what the turn did before, see
-- `remember_all`).
-- Answers 1, or 0 when it is not the owner any more (then nothing changes).
local report, connector, token, change = ARGV[3], ARGV[4], ARGV[5], cjson.decode(ARGV[6])
local key = delivery_key(connector, report)
adjust(connector, report)
local delivery = hash(key)
if delivery.owner ~= token then return 0 end

local todo = {}
for _, item in ipairs(cjson.decode(delivery.todo or '[]')) do todo[item] = true end
for _, item in ipairs(change.done or {}) do todo[item] = nil end
for _, item in ipairs(change.todo or {}) do todo[item] = true end
local list = {}
for item in pairs(todo) do list[#list + 1] = item end
table.sort(list)

redis.call('HSET', key, 'reason', change.reason or '', 'kind', change.kind or '', 'failures', change.failures or 0,
  'todo', #list > 0 and cjson.encode(list) or '[]', 'updated_at', int(now))
remember_all(connector, report, token, change.events)
local reason = change.reason or ''
local settled = delivery.state ~= 'pending' and delivery.state ~= 'creating'
if change.state == 'rejected' or change.state == 'held' then
  local note = settled and remember or happened
  note(connector, report, change.state, reason)
elseif change.kind == 'doubt' then
  remember(connector, report, 'doubtful', reason)
elseif reason ~= '' then
  remember(connector, report, 'waiting', reason)
end
touch(connector, report)
if change.result then redis.call('HDEL', key, 'lapsed') end
if change.doubt then redis.call('HSET', key, 'doubt_at', int(now), 'looked', 0) end
if change.looked then redis.call('HSET', key, 'looked', change.looked) end
if change.considered then redis.call('HSET', key, 'considered', change.considered) end
if change.remark then redis.call('HSET', key, 'remark', change.remark) end
if settled and change.state then
  change.delay = 0 -- somebody recorded the ticket meanwhile: that fact stands, and what it asks for is due
elseif change.state then
  set_state(connector, report, change.state)
  if change.state == 'pending' or change.state == 'rejected' or change.state == 'held' then
    redis.call('HDEL', key, 'creating_at')
    if change.state ~= 'held' then redis.call('HDEL', key, 'doubt_at', 'looked') end
    drop_proof(connector, report)
  end
end

-- What quiet hours hold back waits because somebody wanted that; it is not late before they end.
local waits = redis.call('HGET', key, 'state')
if change.kind == 'quiet' then
  redis.call('ZREM', P .. 'waiting:' .. connector, report)
elseif waits == 'pending' or waits == 'creating' then
  redis.call('ZADD', P .. 'waiting:' .. connector, 'NX', int(now), report)
end

-- What came up during this turn need not wait for what the turn left for later.
if change.waiting then
  local left = {}
  for _, item in ipairs(change.waiting) do left[item] = true end
  for _, item in ipairs(list) do
    if not left[item] then change.delay = 0 end
  end
  if change.later and behind(report, redis.call('HMGET', key, 'told', 'considered', 'ended_at')) then change.delay = 0 end
end

if change.version and num(redis.call('HGET', P .. 'report:' .. report, 'version')) > change.version then change.delay = 0 end

let_go(key, connector, report)
local state = redis.call('HGET', key, 'state')
if change.delay then
  redis.call('HSET', key, 'next_at', int(now + change.delay))
  schedule(connector, report, now + change.delay)
else
  redis.call('HDEL', key, 'next_at')
  -- Something may have been added to what is to do while this turn was under way.
  if (state == 'created' or state == 'closed') and unfinished(connector, report) then
    schedule(connector, report, now)
  else
    unschedule(connector, report)
    rest(connector, report)
  end
end
return 1
