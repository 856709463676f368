-- Verifies deliveries against everything that names them, each in this one moment, so that what moves gives no false alarm.
-- ARGV: JSON [[report, connector], …], 1 to mend what can be mended here. Answers JSON [[place in the list, code, mended], …]
-- (mended is 1 or 0); the codes are `bridge.store_findings.KINDS`. What may have been sent goes to look-up, never back to `pending`.
local STATES = {'pending', 'creating', 'created', 'rejected', 'held', 'closed', 'handled', 'gone'}
local KNOWN = {}
for _, state in ipairs(STATES) do KNOWN[state] = true end
local NUMBERS = {'order', 'attempts', 'failures', 'lapsed', 'told', 'considered', 'looked', 'ends', 'tickets', 'next_at', 'planned_at',
  'lease_until', 'created_at', 'updated_at', 'creating_at', 'recorded_at', 'ended_at'}
local LISTS = {'todo', 'statuses', 'former'}
local mend, found = ARGV[4] == '1', {}

local function open(report)
  return redis.call('ZSCORE', P .. 'open', report) or redis.call('ZSCORE', P .. 'missing', report)
end

local function check(place, report, connector)
  local key, name = delivery_key(connector, report), member(connector, report)
  local delivery, exists = hash(key)
  delivery = expanded(delivery, report)
  local function finds(code, repair)
    if mend and repair then
      awake(key, report)
      repair()
    end
    found[#found + 1] = {place, code, mend and repair and 1 or 0}
  end

  if not exists then -- is anything left of it?
    local traces = redis.call('EXISTS', P .. 'history:' .. report .. ':' .. connector, P .. 'progress:' .. report .. ':' .. connector)
    for _, set in ipairs({'due:', 'ready:', 'waiting:'}) do
      if redis.call('ZSCORE', P .. set .. connector, report) then traces = traces + 1 end
    end
    for _, state in ipairs(STATES) do
      if redis.call('ZSCORE', P .. 'state:' .. state, name) then traces = traces + 1 end
    end
    if traces > 0 then
      if open(report) then return finds('lost') end -- mended by the caller, who knows what its reference is
      finds('dangling', function()
        unschedule(connector, report)
        redis.call('ZREM', P .. 'waiting:' .. connector, report)
        for _, state in ipairs(STATES) do redis.call('ZREM', P .. 'state:' .. state, name) end
        redis.call('DEL', P .. 'history:' .. report .. ':' .. connector, P .. 'progress:' .. report .. ':' .. connector)
        touch(connector, report)
      end)
    end
    return
  end

  -- What is written in it.
  if not is_reference(delivery.reference) then return finds('no_reference') end
  for _, field in ipairs(NUMBERS) do
    if delivery[field] and delivery[field] ~= '' and not tonumber(delivery[field]) then
      finds('unreadable', function()
        if field == 'lease_until' or field == 'ended_at' then -- that there is one says something: an owner, or an end that was told
          redis.call('HSET', key, field, int(now))
        else
          redis.call('HDEL', key, field)
        end
      end)
    end
  end
  if delivery.doubt_at and not tonumber(delivery.doubt_at) then
    finds('unreadable', function() redis.call('HSET', key, 'doubt_at', int(now), 'looked', 0) end)
  end
  for _, field in ipairs(LISTS) do
    if delivery[field] and delivery[field] ~= '' then
      local readable, value = pcall(cjson.decode, delivery[field])
      if not readable or type(value) ~= 'table' then
        finds('unreadable', function() redis.call('HDEL', key, field) end)
        if not mend then return end -- what is to do cannot be told
      end
    end
  end
  delivery = expanded((hash(key)), report)

  -- Its state.
  local function look_up()
    redis.call('HSET', key, 'doubt_at', int(now), 'looked', 0)
    redis.call('HDEL', key, 'next_at')
    set_state(connector, report, 'creating')
    if not delivery.owner then schedule(connector, report, now) end
  end
  local state, has_ticket = delivery.state or '', (delivery.ticket_id or '') ~= ''
  if not KNOWN[state] then
    finds('unknown_state', function()
      if has_ticket then set_state(connector, report, 'created') else look_up() end
    end)
  elseif (state == 'created' or state == 'closed') and not has_ticket then
    finds('no_ticket', look_up)
  elseif has_ticket and (state == 'pending' or state == 'creating' or state == 'rejected' or state == 'held') then
    finds('has_ticket', function() set_state(connector, report, 'created') end)
  elseif state == 'pending' and delivery.doubt_at then
    finds('maybe_sent', function() set_state(connector, report, 'creating') end)
  end
  state = redis.call('HGET', key, 'state')
  if not KNOWN[state or ''] then return end

  -- The indexes of states and of what waits.
  for _, other in ipairs(STATES) do
    local there = redis.call('ZSCORE', P .. 'state:' .. other, name)
    if other == state and not there then
      finds('not_in_state', function()
        redis.call('ZADD', P .. 'state:' .. state, int(num(delivery.updated_at)), name)
        touch(connector, report)
      end)
    elseif other ~= state and there then
      finds('in_other_state', function()
        redis.call('ZREM', P .. 'state:' .. other, name)
        touch(connector, report)
      end)
    end
  end
  local counted = redis.call('ZSCORE', P .. 'waiting:' .. connector, report)
  local waits = state == 'pending' or state == 'creating'
  if waits and not counted and delivery.kind ~= 'quiet' then
    finds('not_waiting', function()
      redis.call('ZADD', P .. 'waiting:' .. connector, 'NX', int(delivery.created_at and num(delivery.created_at) or now), report)
    end)
  elseif counted and not waits then
    finds('waits_no_more', function() redis.call('ZREM', P .. 'waiting:' .. connector, report) end)
  end

  -- When it is next taken up.
  local due, ready = redis.call('ZSCORE', P .. 'due:' .. connector, report), redis.call('ZSCORE', P .. 'ready:' .. connector, report)
  local function again() -- at its own time, in one place
    local at = num(delivery.owner and delivery.lease_until or delivery.next_at)
    schedule(connector, report, ahead(at, delivery.owner and LONGEST_LEASE or LONGEST_WAIT))
    wake()
  end
  local latest = math.max(num(delivery.next_at), num(delivery.lease_until), now + LONGEST_RESERVED)
  if due and ready then
    finds('twice_scheduled', again)
  elseif not due and not ready and (delivery.owner or unfinished(connector, report)) then
    finds('not_scheduled', again)
  elseif (due or ready) and not delivery.owner and (state == 'rejected' or state == 'held' or state == 'handled' or state == 'gone') then
    finds('scheduled_in_vain', function() unschedule(connector, report) end)
  -- (A dispatcher that still moves what the clock was set back for finds by itself what is scheduled too late; it takes 2 s or less
  -- for no jump.)
  elseif due and tonumber(due) > latest + 3000 and not redis.call('HGET', P .. 'meta', 'set_back:' .. connector) then
    finds('too_late', again)
  elseif ready and delivery.order and tonumber(ready) ~= num(delivery.order) and tonumber(ready) ~= num(delivery.order) - BEGUN_FIRST then
    finds('wrong_turn', function() schedule(connector, report, now) end)
  end

  -- Its report. What ended may be gone from the store; what is still to be made, or may end, must not.
  if (waits or open(report)) and redis.call('HEXISTS', P .. 'report:' .. report, 'version') == 0 then
    finds('no_report', function()
      -- What was told of it must not count as newer than what the next listing says.
      redis.call('HSET', P .. 'report:' .. report, 'version', int(math.max(num(delivery.told), num(delivery.considered))))
      if not open(report) then redis.call('ZADD', P .. 'missing', int(now), report) end
    end)
  end
end

for place, pair in ipairs(cjson.decode(ARGV[3])) do check(place - 1, pair[1], pair[2]) end
return #found > 0 and cjson.encode(found) or '[]'
