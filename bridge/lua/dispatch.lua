-- Takes what may be enqueued for one connector now, most urgent first, and reserves its slots. ARGV: leader number,
-- connector, slot group, concurrency, reservation in ms, whether creates must be proven findable (1 or 0).
-- A reservation that nobody claims runs out and the delivery is due again: that is how a lost message heals.
if not same_birth() then return 'reborn' end
if not leads('dispatcher', ARGV[3]) then return 'deposed' end
local connector, group, limit, reservation = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local due, ready = P .. 'due:' .. connector, P .. 'ready:' .. connector

for _, report in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', int(now), 'LIMIT', 0, 500)) do
  schedule(connector, report, redis.call('HGET', delivery_key(connector, report), 'order') or 0, now)
end
for _, report in ipairs(redis.call('ZRANGEBYSCORE', due, '(' .. int(now + LONGEST_WAIT), '+inf', 'LIMIT', 0, 500)) do
  schedule(connector, report, redis.call('HGET', delivery_key(connector, report), 'order') or 0, now)
end

local pause = paused_until(connector)
if pause > now and pause <= now + LONGEST_WAIT then return {} end

purge_slots(group)
local room = limit - redis.call('ZCARD', P .. 'slots:' .. group)
if room <= 0 then return {} end

-- Until the first create was found again, one delivery at a time may create; others may only finish what they began.
local proof = hash(P .. 'proof:' .. connector)
local unproven = ARGV[8] == '1' and proof.state ~= 'proven'
local taken, scan = {}, room
if unproven then scan = 200 end
local idle = redis.call('ZCARD', P .. 'slots:' .. group) == 0
local may_create = not unproven or (idle and not proof.report)
for _, report in ipairs(redis.call('ZRANGE', ready, 0, scan - 1)) do
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
