-- A ticket was told something, or seen. ARGV: report, connector, owner token, JSON of what to write: told (version), facts, state,
-- ended (true or false), remark, statuses (ids that the bridge set or saw at first), forget (id of one that is a person's doing
-- from now on), progress (prefix of what a note kept), events (what the turn did before, see `remember_all`).
-- With `told` the plan is carried out. Answers 1, or 0 when it is not the owner any more (then nothing changes).
local report, connector, change = ARGV[3], ARGV[4], cjson.decode(ARGV[6])
local key = delivery_key(connector, report)
local delivery = hash(key)
if delivery.owner ~= ARGV[5] then return 0 end
remember_all(connector, report, ARGV[5], change.events)
touch(connector, report)
if change.told then
  redis.call('HDEL', key, 'plan', 'planned_at')
  redis.call('HSET', key, 'told', int(math.max(num(delivery.told), change.told)))
end
if change.facts then keep_facts(connector, report, change.facts) end
if change.ended == true and not delivery.ended_at then
  redis.call('HSET', key, 'ended_at', int(now))
  redis.call('HINCRBY', key, 'ends', 1)
end
if change.ended == false then redis.call('HDEL', key, 'ended_at') end
if change.remark then redis.call('HSET', key, 'remark', change.remark) end
if change.forget then forget_status(key, change.forget) end
for _, status in ipairs(change.statuses or {}) do add_status(key, status) end
if change.progress then
  local progress = P .. 'progress:' .. report .. ':' .. connector
  for field in pairs((hash(progress))) do
    if string.sub(field, 1, #change.progress) == change.progress then redis.call('HDEL', progress, field) end
  end
end
local TURNS = {closed = 'closed', created = 'reopened', gone = 'gone'}
if change.state then
  if change.state ~= delivery.state and TURNS[change.state] then happened(connector, report, TURNS[change.state], change.remark) end
  set_state(connector, report, change.state)
  redis.call('HSET', key, 'reason', '')
end
return 1
