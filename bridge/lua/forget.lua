-- One part of a round over all deliveries, oldest state first: those at rest take their small form, and what is long over is
-- forgotten. ARGV: leader number, most deliveries to look at, ms after a report's end for which its snapshot is kept, and its
-- deliveries (0: for ever), ms from the start of one round to that of the next.
-- Answers {looked at, snapshots forgotten, deliveries forgotten, 1 when the round goes on}. Where the round stands is in the
-- store, so that this may run twice. What a change of state moves past it meanwhile comes in the next round.
if not same_birth() then return 'reborn' end
if not leads('poller', ARGV[3]) then return 'deposed' end
local STATES = {'created', 'closed', 'rejected', 'held', 'handled', 'gone'}
local most, keep_snapshots, keep_deliveries, every = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local place = hash(P .. 'forgetting')
local state, rank = num(place.state), num(place.rank)
if state < 1 or state > #STATES then
  if state > 0 and ahead(num(place.round_at) + every, every) > now then return {0, 0, 0, 0} end
  state, rank = 1, 0
  redis.call('HSET', P .. 'forgetting', 'round_at', int(now))
end

local known = {}
for _, field in ipairs(redis.call('HKEYS', P .. 'meta')) do
  local name = string.match(field, '^clock:(.+)$')
  if name then known[name] = true end
end

-- When the last thing happened that ended a report (ms), and whether the store has its snapshot. nil: it may be open, or one of its
-- deliveries has something to do or does not know of the end.
local function over_since(report)
  local its = redis.call('HMGET', P .. 'report:' .. report, 'version', 'over', 'over_at')
  if its[1] and its[2] ~= '1' then return nil end
  if redis.call('ZSCORE', P .. 'open', report) or redis.call('ZSCORE', P .. 'missing', report) then return nil end
  local since = num(its[3])
  for name in pairs(known) do
    local one = redis.call('HMGET', delivery_key(name, report), 'state', 'owner', 'plan', 'ended_at', 'moments')
    if one[1] then
      if one[1] == 'pending' or one[1] == 'creating' or one[2] or (one[3] or '') ~= '' or scheduled(name, report) then return nil end
      local told = num(one[4])
      if ended(one[5]) then told = num(string.match(one[5], '^%d+')) + num(ended(one[5])) end
      if told == 0 and its[1] and (one[1] == 'created' or one[1] == 'closed') then return nil end
      since = math.max(since, told, num(redis.call('ZSCORE', P .. 'state:' .. one[1], member(name, report))))
    end
  end
  return since, its[1]
end

local function exists(connector, report) return redis.call('EXISTS', delivery_key(connector, report)) == 1 end

-- The report goes, with what its deliveries keep because of it. Versions that were told say nothing of those of a report that comes
-- back: they begin anew.
local function forget_report(report)
  redis.call('DEL', P .. 'report:' .. report, P .. 'comments:' .. report)
  for name in pairs(known) do
    if exists(name, report) then
      redis.call('HDEL', delivery_key(name, report), 'told', 'considered', 'facts')
      touch(name, report)
    end
  end
end

local function forget_delivery(connector, report, its_state)
  redis.call('DEL', delivery_key(connector, report), P .. 'history:' .. report .. ':' .. connector,
    P .. 'progress:' .. report .. ':' .. connector)
  redis.call('ZREM', P .. 'state:' .. its_state, member(connector, report))
  touch(connector, report)
  for name in pairs(known) do
    if exists(name, report) then return end
  end
  redis.call('DEL', P .. 'report:' .. report, P .. 'comments:' .. report)
end

local function due(keep, at) return keep > 0 and at + keep <= now end
local entries = redis.call('ZRANGE', P .. 'state:' .. STATES[state], rank, rank + most - 1, 'WITHSCORES')
local looked, snapshots, deliveries = #entries / 2, 0, 0
for i = 1, #entries, 2 do
  local report, connector = string.match(entries[i], '^(.-)|(.*)$')
  local at, since, snapshot = tonumber(entries[i + 1]), nil, nil
  if report then known[connector] = true end -- else the entry is damaged, and for `store check`
  -- Most of what is stored is at rest without its snapshot, and stays for long: that costs next to nothing.
  if report and (due(keep_deliveries, at) or (due(keep_snapshots, at) and redis.call('EXISTS', P .. 'report:' .. report) == 1)) then
    since, snapshot = over_since(report)
  end
  if report then rest(connector, report, since ~= nil) end
  if since and due(keep_deliveries, since) then
    forget_delivery(connector, report, STATES[state])
    deliveries = deliveries + 1
  elseif since and snapshot and due(keep_snapshots, since) then
    forget_report(report)
    snapshots = snapshots + 1
  end
end
if looked < most then
  state, rank = state + 1, 0
else
  rank = rank + looked - deliveries
end
redis.call('HSET', P .. 'forgetting', 'state', state, 'rank', int(rank))
return {looked, snapshots, deliveries, state <= #STATES and 1 or 0}
