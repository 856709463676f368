-- Takes what may be enqueued for one connector now, most urgent first, and reserves its slots. ARGV: leader number,
-- connector, slot group, concurrency, reservation in ms, whether creates must be proven findable (1 or 0), longest time a
-- proof may take in ms, most deliveries to take (0: only look at the clock and at what became due), ms that really passed
-- since the caller's last look at this connector (-1: not known).
-- A reservation that nobody claims runs out and the delivery is due again: that is how a lost message heals.
if not same_birth() then return 'reborn' end
if not leads('dispatcher', ARGV[3]) then return 'deposed' end
local connector, group, limit, reservation = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local due, ready = P .. 'due:' .. connector, P .. 'ready:' .. connector

-- A clock that was set moves the times of all that waits: each delivery's own when it is next taken up (`adjust`), and when
-- each is due in batches over several looks. Only what somebody may be at right now is dealt with at once.
local BATCH = 100
local clock, set_back = 'clock:' .. connector, 'set_back:' .. connector
local seen, passed = num(redis.call('HGET', P .. 'meta', clock)), tonumber(ARGV[11])
local back = seen - now
if seen > 0 and passed >= 0 and now - seen - passed > 2000 then
  local forward, held = now - seen - passed, {}
  redis.call('HINCRBY', P .. 'meta', 'jumped:' .. connector, int(forward))
  -- Those with a slot, and where another script took it from them since, those whose lease would just have gone on.
  for _, holder in ipairs(redis.call('ZRANGE', P .. 'slots:' .. group, 0, -1)) do
    local report, name = string.match(holder, '^(.-)|(.*)$')
    if name == connector then held[#held + 1] = report end
  end
  for _, report in ipairs(redis.call('ZRANGEBYSCORE', due, int(now - forward), int(now - forward + LONGEST_RESERVED), 'LIMIT', 0, BATCH)) do
    held[#held + 1] = report
  end
  for _, report in ipairs(held) do
    adjust(connector, report)
    local its = redis.call('HMGET', delivery_key(connector, report), 'owner', 'lease_until')
    if its[1] and num(its[2]) > now then
      redis.call('ZADD', P .. 'slots:' .. group, its[2], member(connector, report))
      schedule(connector, report, num(its[2]))
    end
  end
elseif back > 2000 then
  local function move(key, field)
    local at = num(redis.call('HGET', key, field))
    if at > now then redis.call('HSET', key, field, int(math.max(now, at - back))) end
  end
  redis.call('HINCRBY', P .. 'meta', 'jumped:' .. connector, int(-back))
  -- Set back again before all has been moved: what is left has both to go, and nothing is harmed by being due too early.
  local by = num(string.match(redis.call('HGET', P .. 'meta', set_back) or '', '^%d+')) + back
  redis.call('HSET', P .. 'meta', set_back, int(by) .. ' ' .. int(now))
  for _, field in ipairs({'until', 'next_probe', 'since'}) do move(P .. 'pause:' .. connector, field) end
  move(P .. 'proof:' .. connector, 'since')
  move(P .. 'meta', 'hold_until')
end

-- What was scheduled before the clock was set back, soonest first. Whatever is moved lands before the place remembered; what is
-- scheduled meanwhile may be moved as well, and finds at its claim that it is early.
local left = redis.call('HGET', P .. 'meta', set_back)
if left then
  local by, from = string.match(left, '^(%d+) (.+)$')
  local entries = redis.call('ZRANGEBYSCORE', due, from, '+inf', 'WITHSCORES', 'LIMIT', 0, BATCH)
  local moved = false
  for i = 1, #entries, 2 do
    local report, to = entries[i], math.max(now, tonumber(entries[i + 1]) - tonumber(by))
    local key = delivery_key(connector, report)
    adjust(connector, report)
    local its = redis.call('HMGET', key, 'lease_until', 'next_at')
    if its[1] then
      to = num(its[1])
    elseif num(its[2]) > to then
      redis.call('HSET', key, 'next_at', int(to))
    end
    moved = moved or to < tonumber(entries[i + 1])
    schedule(connector, report, to)
  end
  if #entries < 2 * BATCH then
    redis.call('HDEL', P .. 'meta', set_back)
  else
    redis.call('HSET', P .. 'meta', set_back, by .. ' ' .. (moved and '' or '(') .. entries[#entries])
    wake()
  end
end
redis.call('HSET', P .. 'meta', clock, int(now))

local came = redis.call('ZRANGEBYSCORE', due, '-inf', int(now), 'LIMIT', 0, BATCH)
for _, report in ipairs(came) do schedule(connector, report, now) end
if #came == BATCH then wake() end -- there are more
for _, report in ipairs(redis.call('ZRANGEBYSCORE', due, '(' .. int(now + LONGEST_WAIT), '+inf', 'LIMIT', 0, BATCH)) do
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
