-- Takes a delivery for one owner. ARGV: report ('' whichever comes first of what `dispatch` could give out now), connector, owner
-- token, lease in ms, slot group, concurrency, JSON of the look-up offsets in ms, whether creates must be proven findable (1 or 0;
-- asked where no report is named). Answers {'claimed', delivery, report, progress, time in ms, report's id}, the hashes as flat
-- field lists, or {why not}.
if not same_birth() then return {'reborn'} end
local report, connector, token, lease, group = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
local limit, offsets = tonumber(ARGV[8]), cjson.decode(ARGV[9])
if report == '' then
  purge_slots(group)
  local holders = redis.call('ZRANGE', P .. 'slots:' .. group, 0, -1)
  for _, holder in ipairs(holders) do -- claimed already, but the answer was lost
    local its, name = string.match(holder, '^(.-)|(.*)$')
    if redis.call('HGET', delivery_key(name, its), 'owner') == token then report = its end
  end
  if report == '' then
    local proven = ARGV[10] ~= '1' or redis.call('HGET', P .. 'proof:' .. connector, 'state') == 'proven'
    if not proven or #holders >= limit then return {'nothing'} end
    report = redis.call('ZRANGE', P .. 'ready:' .. connector, 0, 0)[1]
    if not report then return {'nothing'} end
  end
end
local key = delivery_key(connector, report)
awake(key, report)
adjust(connector, report)
local delivery, exists = hash(key)
if not exists then
  unschedule(connector, report)
  free_slot(group, connector, report)
  return {'missing'}
end

if delivery.owner ~= token then
  if delivery.owner and ahead(delivery.lease_until, LONGEST_LEASE) > now then return {'busy'} end

  -- The former owner never came back. What it was sending is in doubt from the last moment it could have been sending.
  if delivery.owner then
    local lapsed_at = math.min(num(delivery.lease_until), now)
    local lapsed = redis.call('HINCRBY', key, 'lapsed', 1)
    redis.call('HDEL', key, 'owner', 'lease_until', 'next_at')
    -- 5 s to 5 min from the third on: what kills workers does so less and less often, and what is killed with them has a chance.
    if lapsed >= 3 and delivery.state ~= 'creating' then
      redis.call('HSET', key, 'next_at', int(now + math.min(5000 * 2 ^ (lapsed - 3), 300000)))
    end
    if delivery.state == 'creating' and not delivery.doubt_at then
      local reason = 'the worker that was creating this ticket ended before it could say how; it is being looked up'
      redis.call('HSET', key, 'doubt_at', int(lapsed_at), 'looked', 0, 'reason', reason)
      remember(connector, report, 'doubtful', reason)
    else
      remember(connector, report, 'waiting', 'the worker that had it ended before it could say how')
    end
    delivery = hash(key)
  end

  -- Whoever was creating this let go without saying how it ended: in doubt, whatever the reason.
  if delivery.state == 'creating' and not delivery.doubt_at then
    redis.call('HSET', key, 'doubt_at', int(now), 'looked', 0)
    delivery = hash(key)
  end

  local at = ahead(delivery.next_at, LONGEST_WAIT)
  if delivery.state == 'creating' and delivery.doubt_at and not delivery.next_at then
    at = ahead(num(delivery.doubt_at) + num(offsets[num(delivery.looked) + 1]), LONGEST_WAIT)
    redis.call('HSET', key, 'next_at', int(at))
  end
  local pause = ahead(paused_until(connector), LONGEST_WAIT)
  local scheduled = redis.call('ZSCORE', P .. 'due:' .. connector, report)
    or redis.call('ZSCORE', P .. 'ready:' .. connector, report)
  if not scheduled or at > now or pause > now then
    free_slot(group, connector, report)
    if scheduled then schedule(connector, report, at) end
    return {pause > now and 'paused' or 'early'}
  end

  purge_slots(group)

  -- Whatever was in flight beside a report that kills workers lapsed with it: of what lapsed three times in a row, one is taken
  -- up at a time, so that the others come to their end. What lapsed less often, as after any kill, is taken up at once.
  if num(delivery.lapsed) >= 3 then
    for _, holder in ipairs(redis.call('ZRANGE', P .. 'slots:' .. group, 0, -1)) do
      local other, name = string.match(holder, '^(.-)|(.*)$')
      local its = redis.call('HMGET', delivery_key(name, other), 'owner', 'lapsed')
      if holder ~= member(connector, report) and its[1] and num(its[2]) >= 3 then
        redis.call('HSET', key, 'next_at', int(now + 1000))
        free_slot(group, connector, report)
        schedule(connector, report, now + 1000)
        return {'early'}
      end
    end
  end

  if not redis.call('ZSCORE', P .. 'slots:' .. group, member(connector, report))
    and redis.call('ZCARD', P .. 'slots:' .. group) >= limit then
    schedule(connector, report, now)
    return {'full'}
  end
  redis.call('HINCRBY', key, 'attempts', 1)
  remember(connector, report, 'claimed')
end

local lease_until = now + lease
redis.call('HSET', key, 'owner', token, 'lease_until', int(lease_until), 'group', group)
redis.call('ZADD', P .. 'slots:' .. group, int(lease_until), member(connector, report))
schedule(connector, report, lease_until)
return {'claimed', redis.call('HGETALL', key), redis.call('HGETALL', P .. 'report:' .. report),
  redis.call('HGETALL', P .. 'progress:' .. report .. ':' .. connector), int(now), report}
