-- Takes what may be enqueued for one connector now, most urgent first, and reserves its slots. ARGV: leader number,
-- connector, slot group, concurrency, reservation in ms, whether creates must be proven findable (1 or 0), longest time a
-- proof may take in ms, most deliveries to take (0: only look at the clock and at what became due), ms that really passed
-- since the caller's last look at this connector (-1: not known).
-- A reservation that nobody claims runs out and the delivery is due again: that is how a lost message heals.
if not same_birth() then return 'reborn' end
if not leads('dispatcher', ARGV[3]) then return 'deposed' end
local connector, group, limit, reservation = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local due, ready = P .. 'due:' .. connector, P .. 'ready:' .. connector

-- A clock that was set back would make everything wait longer: what lies ahead moves back with it.
local clock = 'clock:' .. connector
local seen, passed = num(redis.call('HGET', P .. 'meta', clock)), tonumber(ARGV[11])
local back = seen - now
-- Everything that is scheduled, with its time, or false when that has come.
local function waiting()
  local found = {}
  for _, report in ipairs(redis.call('ZRANGE', ready, 0, -1)) do found[report] = false end
  local entries = redis.call('ZRANGE', due, 0, -1, 'WITHSCORES')
  for i = 1, #entries, 2 do found[entries[i]] = tonumber(entries[i + 1]) end
  return found
end
if seen > 0 and passed >= 0 and now - seen - passed > 2000 then
  -- Set forward: no doubt may settle by that, and no owner lose the lease under which it may be sending.
  local forward = now - seen - passed
  for report in pairs(waiting()) do
    local key = delivery_key(connector, report)
    local delivery = redis.call('HMGET', key, 'doubt_at', 'lease_until', 'planned_at')
    if delivery[1] then redis.call('HSET', key, 'doubt_at', int(math.min(now, num(delivery[1]) + forward))) end
    if num(delivery[3]) > 0 then redis.call('HSET', key, 'planned_at', int(math.min(now, num(delivery[3]) + forward))) end
    if delivery[2] and num(delivery[2]) <= now then -- else it was renewed since
      local lease_until = num(delivery[2]) + forward
      redis.call('HSET', key, 'lease_until', int(lease_until))
      redis.call('ZADD', P .. 'slots:' .. group, int(lease_until), member(connector, report))
      schedule(connector, report, lease_until)
    end
  end
elseif back > 2000 then
  local function move(key, field)
    local at = num(redis.call('HGET', key, field))
    if at > now then redis.call('HSET', key, field, int(math.max(now, at - back))) end
  end
  for report, at in pairs(waiting()) do
    local key = delivery_key(connector, report)
    for _, field in ipairs({'next_at', 'doubt_at', 'planned_at'}) do move(key, field) end
    local lease_until = redis.call('HGET', key, 'lease_until')
    if lease_until then -- renewed since or not, it ends soon unless its owner lives
      lease_until = math.min(num(lease_until), now + reservation)
      redis.call('HSET', key, 'lease_until', int(lease_until))
    end
    if at then redis.call('ZADD', due, int(lease_until or at - back), report) end
  end
  for _, field in ipairs({'until', 'next_probe', 'since'}) do move(P .. 'pause:' .. connector, field) end
  move(P .. 'proof:' .. connector, 'since')
  move(P .. 'meta', 'hold_until')
end
redis.call('HSET', P .. 'meta', clock, int(now))

for _, report in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', int(now), 'LIMIT', 0, 500)) do
  schedule(connector, report, now)
end
for _, report in ipairs(redis.call('ZRANGEBYSCORE', due, '(' .. int(now + LONGEST_WAIT), '+inf', 'LIMIT', 0, 500)) do
  schedule(connector, report, now)
end

local pause = paused_until(connector)
if pause > now and pause <= now + LONGEST_WAIT then return {} end

purge_slots(group)
local room = limit - redis.call('ZCARD', P .. 'slots:' .. group)
room = math.min(room, tonumber(ARGV[10]))
if room <= 0 then return {} end

-- Until the first create was found again, one delivery at a time may create; others may only finish what they began.
local proof = hash(P .. 'proof:' .. connector)
local unproven = ARGV[8] == '1' and proof.state ~= 'proven'
local candidates, may_create = {}, true
if unproven then
  if proof.report then
    -- A proof that nobody will finish any more is none.
    local its = redis.call('HMGET', delivery_key(connector, proof.report), 'state', 'todo')
    local alive = its[1] == 'creating' or (its[1] == 'created' and string.find(its[2] or '', '"verify"', 1, true))
    local expired = not proof.failed and ahead(num(proof.since) + tonumber(ARGV[9]), LONGEST_WAIT) <= now
    if not alive or expired then
      redis.call('DEL', P .. 'proof:' .. connector)
      proof = {}
    elseif redis.call('ZSCORE', ready, proof.report) then
      candidates[1] = proof.report
    end
  end
  may_create = not proof.report
  for _, holder in ipairs(redis.call('ZRANGE', P .. 'slots:' .. group, 0, -1)) do
    local report, name = string.match(holder, '^(.-)|(.*)$')
    if name == connector and redis.call('HGET', delivery_key(connector, report), 'state') == 'pending' then
      may_create = false -- it is on its way to be the first
    end
  end
end
for _, report in ipairs(redis.call('ZRANGE', ready, 0, (unproven and 1000 or room) - 1)) do
  if report ~= candidates[1] then candidates[#candidates + 1] = report end
end
local taken = {}
for _, report in ipairs(candidates) do
  if #taken == room then break end
  local state = redis.call('HGET', delivery_key(connector, report), 'state')
  if not state then
    unschedule(connector, report)
  elseif may_create or state ~= 'pending' or proof.report == report then
    if unproven and state == 'pending' then may_create = false end
    redis.call('ZREM', ready, report)
    redis.call('ZADD', due, int(now + reservation), report)
    redis.call('ZADD', P .. 'slots:' .. group, int(now + reservation), member(connector, report))
    taken[#taken + 1] = report
  end
end
return taken
