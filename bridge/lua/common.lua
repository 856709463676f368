-- Shared by every script. KEYS[1] is the key prefix, ARGV[1] the clock's offset in ms (0 but in tests), ARGV[2] the birth
-- mark that the caller knows ('' where it does not matter). Scripts are safe to run twice: redis-py repeats a command whose
-- reply was lost.
local P = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[1])

-- Longest time ahead, in ms, that each thing can rightly be; what lies further ahead comes from a clock that jumped.
local LONGEST_LEASE = 60000
local LONGEST_WAIT = 3660000
-- Of an owner that may be dead: as long as a message that nobody claims.
local LONGEST_RESERVED = 10000
-- More than any `order` (see observe.lua): what is less by it comes before all others, in its own order.
local BEGUN_FIRST = 1e15
-- Comes after every `order`, in turn: of what is due again after it was at rest, until the poller says how urgent it is.
local AT_REST = 7e13

local function int(value) return string.format('%.0f', value) end
local function num(value) return tonumber(value or '') or 0 end

local function hash(key)
  local flat, fields = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields, #flat > 0
end

local function delivery_key(connector, report) return P .. 'delivery:' .. report .. ':' .. connector end
local function member(connector, report) return report .. '|' .. connector end

-- Deliveries that the feed of changes keeps.
local FEED = 50000
local touched = {}
-- What people see of a delivery changed. Times in the feed only rise, whatever the clock does: a reader goes on from the last.
local function touch(connector, report)
  local name = member(connector, report)
  if touched[name] then return end
  touched[name] = true
  local last = redis.call('ZREVRANGE', P .. 'changed', 0, 0, 'WITHSCORES')
  redis.call('ZADD', P .. 'changed', int(math.max(now, num(last[2]) + 1)), name)
  redis.call('ZREMRANGEBYRANK', P .. 'changed', 0, -FEED - 1)
end

-- As `bridge.history.What`. An entry is its letter, ms since the first entry (which has its time), the attempt, and how often
-- and when last it came again; then a space and the text.
local LETTERS = {seen = 's', claimed = 'c', looked_up = 'l', creating = 'g', found = 'f', created = 'm', waiting = 'w', doubtful = 'd',
  rejected = 'x', held = 'h', noted = 'n', closed = 'z', reopened = 'o', continued = 'k', retried = 'r', handled = 'a', gone = 'q'}
local UNDER_WAY, WAITING = 'clg', 'wd'
-- Most entries, how many of the first are kept when there are more, and the longest text in bytes.
local MOST_KEPT, FIRST_KEPT, LONGEST_TEXT = 60, 20, 400

local function cut(text)
  if #text <= LONGEST_TEXT then return text end
  text = string.sub(text, 1, LONGEST_TEXT)
  while #text > 0 and string.byte(text, -1) >= 128 and string.byte(text, -1) < 192 do text = string.sub(text, 1, -2) end
  return string.sub(text, 1, -2) .. '…'
end

-- Writes into a delivery's history, `ago` ms before now. What is tried again and again stays one entry: the same wait replaces
-- all turns since it last began. Answers whether this is a new entry.
local function remember(connector, report, what, text, ago)
  touch(connector, report)
  local key, code, at = P .. 'history:' .. report .. ':' .. connector, LETTERS[what], now - (ago or 0)
  local attempt, first = num(redis.call('HGET', delivery_key(connector, report), 'attempts')), redis.call('LINDEX', key, 0)
  text = cut(text or '')
  if first then at = at - num(string.match(first, '^%a(-?%d+)')) end
  local last = redis.call('LRANGE', key, -8, -1)
  for i = #last, 1, -1 do
    local its_code, its_at, times, its_text = string.match(last[i], '^(%a)(-?%d+),%d+,?(%d*)[-,%d]* ?(.*)$')
    if not its_code then break end -- another version wrote it
    if its_code == code and its_text == text then
      if what == 'retried' then return false end -- nothing came of it yet
      redis.call('LSET', key, i - #last - 1, table.concat({code .. its_at, int(attempt), int(math.max(num(times), 1) + 1),
        int(first and at or 0)}, ',') .. (text ~= '' and ' ' .. text or ''))
      if string.find(WAITING, code, 1, true) and i < #last then redis.call('LTRIM', key, 0, i - #last - 1) end
      return false
    end
    if not string.find(UNDER_WAY, its_code, 1, true) or not string.find(UNDER_WAY .. WAITING, code, 1, true) then break end
  end
  if redis.call('RPUSH', key, code .. int(at) .. ',' .. int(attempt) .. (text ~= '' and ' ' .. text or '')) > MOST_KEPT then
    redis.call('LSET', key, FIRST_KEPT, '')
    redis.call('LREM', key, 1, '')
  end
  return true
end

-- Counts for metrics and page (`bridge.counters`): in the same script as what is counted, so they are exact.
local DAY, DAYS_KEPT = 86400000, 400
-- Upper ends of the buckets of times, in ms.
local BUCKETS = {1000, 2000, 5000, 10000, 15000, 30000, 60000, 120000, 300000, 600000, 1800000, 3600000, 21600000, 86400000}

local function count(field, by) redis.call('HINCRBY', P .. 'counters', field, int(by or 1)) end
local function count_today(field, by)
  local key = P .. 'day:' .. int(math.floor(now / DAY))
  if redis.call('HINCRBY', key, field, int(by or 1)) == (by or 1) then -- new, and maybe the key with it
    redis.call('PEXPIRE', key, int(DAYS_KEPT * DAY))
  end
end

-- Notes how long something took, since `at`; nothing where that is not known.
local function count_time(connector, since, at)
  if num(at) <= 0 then return end
  local took, bucket = math.max(0, now - num(at)), #BUCKETS + 1
  for i = #BUCKETS, 1, -1 do
    if took <= BUCKETS[i] then bucket = i end
  end
  for name, by in pairs({[int(bucket)] = 1, sum = took}) do
    count('time:' .. since .. ':' .. connector .. ':' .. name, by)
    count_today('time:' .. since .. ':' .. name, by)
  end
end

-- A report was seen for the first time; whatever its severity is called, there are four.
local function count_report(severity)
  if severity ~= 'critical' and severity ~= 'high' and severity ~= 'low' then severity = 'other' end
  count('report:' .. severity)
  count_today('report:' .. severity)
end

-- As `remember`, for what is counted as well.
local function happened(connector, report, what, text, ago)
  if remember(connector, report, what, text, ago) then count('delivery:' .. connector .. ':' .. what) end
end

-- A ticket's number became known after its id was written.
local function call_by_number(connector, report, id, number)
  local key = P .. 'history:' .. report .. ':' .. connector
  for i, entry in ipairs(redis.call('LRANGE', key, 0, -1)) do
    local start, text = string.match(entry, '^([mf]%S+) (.*)$')
    if text == id then redis.call('LSET', key, i - 1, start .. ' ' .. number) end
  end
end

-- What an owner did before the script that now runs: {{what, text, ms ago, its rising number}, …}. What an earlier script of the
-- same owner wrote, whose answer was lost, is not written again.
local function remember_all(connector, report, token, events)
  if not events or #events == 0 then return end
  local key = delivery_key(connector, report)
  local owner, last = string.match(redis.call('HGET', key, 'remembered') or '', '^(.*):(%d+)$')
  for _, event in ipairs(events) do
    if owner ~= token or event[4] > num(last) then
      local note = event[1] == 'noted' and happened or remember
      note(connector, report, event[1], event[2], event[3])
    end
  end
  redis.call('HSET', key, 'remembered', token .. ':' .. int(events[#events][4]))
end

local function same_birth() return redis.call('HGET', P .. 'meta', 'birth') == ARGV[2] end
local function leads(role, number)
  return tonumber(number) > 0 and num(redis.call('GET', P .. 'fence:' .. role)) == tonumber(number)
end

-- A time ahead, or the present when it lies further ahead than it ever could.
local function ahead(at, longest)
  at = num(at)
  if at > now + longest then return now end
  return at
end

-- Puts a delivery where the dispatcher finds it: `ready` by urgency when its time has come, else `due` by time.
local function schedule(connector, report, at)
  if at <= now then
    local its = redis.call('HMGET', delivery_key(connector, report), 'order', 'owner', 'lapsed', 'doubt_at')
    local order = its[1] and num(its[1]) or AT_REST + now
    -- What a worker left under way goes before what nobody began, however urgent.
    if its[2] or its[3] or its[4] then order = order - BEGUN_FIRST end
    redis.call('ZREM', P .. 'due:' .. connector, report)
    redis.call('ZADD', P .. 'ready:' .. connector, int(order), report)
  else
    redis.call('ZREM', P .. 'ready:' .. connector, report)
    redis.call('ZADD', P .. 'due:' .. connector, int(at), report)
  end
end

-- The clock was set by so many ms in all, as the dispatcher noticed; each delivery knows up to which its times were moved with it.
local function jumped(connector) return redis.call('HGET', P .. 'meta', 'jumped:' .. connector) end

-- Moves a delivery's times along with a clock that was set since they were written. Every script that reads or writes them does
-- so first, so that a clock that is set needs no walk over all that waits.
local function adjust(connector, report)
  local sum = jumped(connector)
  if not sum then return end
  local key = delivery_key(connector, report)
  local its = redis.call('HMGET', key, 'state', 'jumped', 'doubt_at', 'planned_at', 'lease_until', 'next_at')
  if not its[1] then return end
  local by, doubt_at, planned_at, lease_until, next_at = num(sum) - num(its[2]), num(its[3]), num(its[4]), num(its[5]), num(its[6])
  -- What was sent was sent in the past, whatever the clock says; no doubt may settle by its being set. What was written after the
  -- clock was set back and before that was noticed would be moved too far: it is taken for no older than it says.
  if by > 0 or doubt_at > now or planned_at > now then
    local later = math.max(0, by)
    if doubt_at > 0 then redis.call('HSET', key, 'doubt_at', int(math.min(now, doubt_at + later))) end
    if planned_at > 0 then redis.call('HSET', key, 'planned_at', int(math.min(now, planned_at + later))) end
  end
  if by == 0 then return end
  -- No owner may lose the lease under which it may be sending, unless it was renewed since; set back, a lease ends soon unless
  -- its owner lives.
  if its[5] and by > 0 and lease_until <= now then
    redis.call('HSET', key, 'lease_until', int(lease_until + by))
  elseif its[5] and by < 0 then
    redis.call('HSET', key, 'lease_until', int(math.min(lease_until, now + LONGEST_RESERVED)))
  end
  if by < 0 and next_at > now then redis.call('HSET', key, 'next_at', int(math.max(now, next_at + by))) end
  redis.call('HSET', key, 'jumped', sum)
end

local function unschedule(connector, report)
  redis.call('ZREM', P .. 'due:' .. connector, report)
  redis.call('ZREM', P .. 'ready:' .. connector, report)
end

local function set_state(connector, report, state)
  local key = delivery_key(connector, report)
  local old = redis.call('HGET', key, 'state')
  if old and old ~= state then redis.call('ZREM', P .. 'state:' .. old, member(connector, report)) end
  redis.call('ZADD', P .. 'state:' .. state, int(now), member(connector, report))
  redis.call('HSET', key, 'state', state, 'updated_at', int(now))
  if state == 'pending' or state == 'creating' then
    redis.call('ZADD', P .. 'waiting:' .. connector, 'NX', int(now), report)
  else
    redis.call('ZREM', P .. 'waiting:' .. connector, report)
  end
  touch(connector, report)
end

-- A status that says nothing about people: the bridge set it, or saw it right after the ticket was made.
local function add_status(key, status)
  local known = cjson.decode(redis.call('HGET', key, 'statuses') or '[]')
  for _, each in ipairs(known) do
    if each == status then return end
  end
  known[#known + 1] = status
  redis.call('HSET', key, 'statuses', cjson.encode(known))
end

local function forget_status(key, status)
  local kept = {}
  for _, each in ipairs(cjson.decode(redis.call('HGET', key, 'statuses') or '[]')) do
    if each ~= status then kept[#kept + 1] = each end
  end
  redis.call('HSET', key, 'statuses', #kept > 0 and cjson.encode(kept) or '[]')
end

-- A delivery that is still to be made, due now.
local function deliver(connector, report, reference, order, organization, severity)
  redis.call('HSETNX', P .. 'meta', 'clock:' .. connector, 0) -- whoever looks for a report's deliveries asks for this connector's
  redis.call('HSET', delivery_key(connector, report), 'reference', reference, 'order', order, 'created_at', int(now),
    'organization', organization, 'severity', severity, 'attempts', 0)
  set_state(connector, report, 'pending')
  remember(connector, report, 'seen')
  schedule(connector, report, now)
end

local function purge_slots(group)
  redis.call('ZREMRANGEBYSCORE', P .. 'slots:' .. group, '-inf', int(now))
  redis.call('ZREMRANGEBYSCORE', P .. 'slots:' .. group, '(' .. int(now + LONGEST_LEASE), '+inf')
end

local function free_slot(group, connector, report)
  if group and group ~= '' then redis.call('ZREM', P .. 'slots:' .. group, member(connector, report)) end
end

local function paused_until(connector)
  return num(redis.call('HGET', P .. 'pause:' .. connector, 'until'))
end

-- Wakes the dispatcher; one element is enough, since a look finds everything.
local function wake()
  if redis.call('EXISTS', P .. 'wake') == 0 then redis.call('LPUSH', P .. 'wake', '1') end
end

-- The owner lets go: its lease, its slot.
local function let_go(key, connector, report)
  free_slot(redis.call('HGET', key, 'group'), connector, report)
  redis.call('HDEL', key, 'owner', 'lease_until', 'group', 'remembered')
  wake()
end

-- Was the ticket told that its report is over, going by the `moments` of a delivery at rest (see `rest`)?
local function ended(moments) return string.match(moments or '', '%-?%d+$') end

-- Does a ticket not know what became of its report? `its` are told, considered and ended_at.
local function behind(report, its)
  local now_is = redis.call('HMGET', P .. 'report:' .. report, 'version', 'over')
  if not now_is[1] then return false end -- it was forgotten, or is not known yet
  return num(now_is[1]) > math.max(num(its[1]), num(its[2])) or (now_is[2] == '1') ~= (its[3] and true or false)
end

-- Is there anything to do for a delivery? Things to do that are in the set `later`, if one is given, do not count.
local function unfinished(connector, report, later)
  local its = redis.call('HMGET', delivery_key(connector, report), 'state', 'todo', 'plan', 'told', 'considered', 'ended_at', 'moments')
  if its[1] == 'pending' or its[1] == 'creating' then return true end
  if its[1] ~= 'created' and its[1] ~= 'closed' then return false end
  for _, item in ipairs(cjson.decode(its[2] or '[]')) do
    if not (later and later[item]) then return true end
  end
  return (its[3] or '') ~= '' or behind(report, {its[4], its[5], its[6] or ended(its[7])})
end

-- There is news for a delivery without an owner: what it waits for, such as its first status, holds it up no longer.
local function due_now(connector, report)
  touch(connector, report)
  redis.call('HDEL', delivery_key(connector, report), 'next_at')
  schedule(connector, report, now)
end

-- One more thing to do for a delivery, as soon as its ticket exists.
local function add_todo(connector, report, item)
  local key = delivery_key(connector, report)
  local its = redis.call('HMGET', key, 'state', 'owner', 'todo')
  if not its[1] then return end
  local todo = {}
  for _, each in ipairs(cjson.decode(its[3] or '[]')) do
    if each ~= item then todo[#todo + 1] = each end
  end
  todo[#todo + 1] = item
  redis.call('HSET', key, 'todo', cjson.encode(todo))
  if (its[1] == 'created' or its[1] == 'closed') and not its[2] then due_now(connector, report) end
end

-- The poller's safety net: what has something to do, and has no owner, must be scheduled.
local function heal(connector, report)
  local its = redis.call('HMGET', delivery_key(connector, report), 'state', 'created_at', 'kind')
  if (its[1] == 'pending' or its[1] == 'creating') and its[2] and its[3] ~= 'quiet' then -- written by a version that kept no such set
    redis.call('ZADD', P .. 'waiting:' .. connector, 'NX', its[2], report)
  end
  if unfinished(connector, report) and redis.call('HEXISTS', delivery_key(connector, report), 'owner') == 0
    and not redis.call('ZSCORE', P .. 'due:' .. connector, report)
    and not redis.call('ZSCORE', P .. 'ready:' .. connector, report) then
    schedule(connector, report, now)
  end
end

-- Has one of these connectors ({{connector, reference}, …}) the report? Then it was seen before, though it may be forgotten.
local function delivered(report, connectors)
  for _, pair in ipairs(connectors) do
    if redis.call('EXISTS', delivery_key(pair[1], report)) == 1 then return true end
  end
  return false
end

-- What people see of a report changed, in every connector that has it.
local function touch_all(report)
  for _, field in ipairs(redis.call('HKEYS', P .. 'meta')) do
    local connector = string.match(field, '^clock:(.+)$')
    if connector and redis.call('EXISTS', delivery_key(connector, report)) == 1 then touch(connector, report) end
  end
end

-- The report was listed as open just now; what was said about its absence no longer holds.
local function listed(report)
  redis.call('ZADD', P .. 'open', int(now), report)
  if redis.call('ZREM', P .. 'missing', report) == 1 then
    redis.call('HDEL', P .. 'report:' .. report, 'missing_why', 'asked')
    touch_all(report)
  end
end

-- This delivery no longer proves that the connector finds what it creates; another one may.
local function drop_proof(connector, report)
  local proof = P .. 'proof:' .. connector
  if redis.call('HGET', proof, 'report') == report and redis.call('HGET', proof, 'state') == 'proving' then
    redis.call('DEL', proof)
  end
end

-- What a ticket was told is kept with the report, and goes with it; with the delivery where the report is not known.
local function keep_facts(connector, report, facts)
  local key = P .. 'report:' .. report
  if redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, 'facts:' .. connector, facts)
    redis.call('HDEL', delivery_key(connector, report), 'facts')
  else
    redis.call('HSET', delivery_key(connector, report), 'facts', facts)
  end
end

-- A delivery at rest: its report is over, its ticket was told, and nobody works on it. It is written anew in the form that needs
-- the least memory, a listpack, as long as no value is longer than 64 bytes: what is empty or follows from the rest is left out,
-- `moments` stands for five times, and of a reference or an address only what no other has is kept. `awake` undoes it.
local MOMENTS = {'created_at', 'creating_at', 'recorded_at', 'updated_at', 'ended_at'}
local EMPTY = {reason = '', kind = '', remark = '', plan = '', planned_at = '0', ticket_number = '', ticket_url = '', other_ticket = '',
  organization = '', statuses = '[]', todo = '[]', failures = '0', considered = '0', tickets = '1'}
-- Most texts that are kept once for all deliveries; what would be one more is kept whole.
local MOST_PATTERNS = 64

local patterns
local function read_patterns()
  if not patterns then patterns = redis.call('LRANGE', P .. 'patterns', 0, -1) end
  return patterns
end

-- '#' and the number of a text that is `text` without `name`, where that stands last in it; `text`, where that cannot be.
local function shortened(text, name)
  local at, from = nil, 1
  repeat
    local found = string.find(text, name, from, true)
    at, from = found or at, (found or 0) + 1
  until not found or name == ''
  if not at or name == '' or string.find(text, '\n', 1, true) then return text end
  local pattern, known = string.sub(text, 1, at - 1) .. '\n' .. string.sub(text, at + #name), read_patterns()
  for i, each in ipairs(known) do
    if each == pattern then return '#' .. i end
  end
  if #known >= MOST_PATTERNS then return text end
  redis.call('RPUSH', P .. 'patterns', pattern)
  known[#known + 1] = pattern
  return '#' .. #known
end

local function lengthened(text, name)
  local number = string.match(text or '', '^#(%d+)$')
  local pattern = number and read_patterns()[tonumber(number)]
  if not pattern then return text end
  local at = string.find(pattern, '\n', 1, true)
  return string.sub(pattern, 1, at - 1) .. name .. string.sub(pattern, at + 1)
end

-- The fields of a delivery at rest as they were before; others as they are.
local function expanded(fields, report)
  if not fields.moments then return fields end
  local i, first = 0, nil
  for moment in string.gmatch(fields.moments .. ',', '(%-?%d*),') do
    i = i + 1
    if moment ~= '' then fields[MOMENTS[i]] = int(num(moment) + (first or 0)) end
    first = first or num(moment)
  end
  fields.moments = nil
  fields.reference = lengthened(fields.reference, report)
  fields.ticket_url = lengthened(fields.ticket_url, fields.ticket_id)
  return fields
end

-- Is this a reference? Not '' and not what is left of a short one when the patterns were lost.
local function is_reference(text) return string.find(text or '', '^[%w%-]+$') end

local function write_anew(key, fields)
  local flat = {}
  for field, value in pairs(fields) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(flat))
end

-- Somebody takes up a delivery that may be at rest.
local function awake(key, report)
  if redis.call('HEXISTS', key, 'moments') == 1 then write_anew(key, expanded((hash(key)), report)) end
end

local function scheduled(connector, report)
  return redis.call('ZSCORE', P .. 'due:' .. connector, report) or redis.call('ZSCORE', P .. 'ready:' .. connector, report)
end

-- Lets a delivery rest, if it is time; `over`: one that has no ticket, or none any more, has nothing to be told. Answers whether it
-- is at rest.
local function rest(connector, report, over)
  local key = delivery_key(connector, report)
  if redis.call('HEXISTS', key, 'moments') == 1 then return true end
  local its = hash(key)
  if not its.created_at or its.owner or its.state == 'pending' or its.state == 'creating' then return false end
  if (its.reference or '') == '' then return false end -- damaged, as below: it stays as `store check` can mend it
  for _, field in ipairs(MOMENTS) do
    if its[field] and not tonumber(its[field]) then return false end
  end
  if not its.ended_at and (not over or its.state == 'created' or its.state == 'closed') then return false end
  if string.sub(its.ticket_url or '', 1, 1) == '#' or scheduled(connector, report) then return false end
  local moments = {its.created_at}
  local told = its.ended_at or its.state == 'gone'
  for i = 2, #MOMENTS do
    local moment = its[MOMENTS[i]]
    moments[i] = moment and int(num(moment) - num(its.created_at)) or ''
    its[MOMENTS[i]] = nil
  end
  its.created_at = nil
  its.moments = table.concat(moments, ',')
  for field, value in pairs(EMPTY) do
    if its[field] == value then its[field] = nil end
  end
  if its.facts then -- written by a version that kept them here
    if redis.call('EXISTS', P .. 'report:' .. report) == 1 then
      redis.call('HSETNX', P .. 'report:' .. report, 'facts:' .. connector, its.facts)
    end
    its.facts = nil
  end
  its.order = nil
  its.reference = shortened(its.reference, report)
  if its.ticket_url then its.ticket_url = shortened(its.ticket_url, its.ticket_id or '') end
  write_anew(key, its)
  if told then redis.call('DEL', P .. 'progress:' .. report .. ':' .. connector) end
  return true
end
