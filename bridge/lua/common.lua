-- Shared by every script. KEYS[1] is the key prefix, ARGV[1] the clock's offset in ms (0 but in tests), ARGV[2] the birth
-- mark that the caller knows ('' where it does not matter). Scripts are safe to run twice: redis-py repeats a command whose
-- reply was lost.
local P = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[1])

-- Longest time ahead, in ms, that each thing can rightly be; what lies further ahead comes from a clock that jumped.
local LONGEST_LEASE = 60000
local LONGEST_WAIT = 3660000
-- More than any `order` (see observe.lua): what is less by it comes before all others, in its own order.
local BEGUN_FIRST = 1e15

local function int(value) return string.format('%.0f', value) end
local function num(value) return tonumber(value or '') or 0 end

local function hash(key)
  local flat, fields = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields, #flat > 0
end

local function delivery_key(connector, report) return P .. 'delivery:' .. report .. ':' .. connector end
local function member(connector, report) return report .. '|' .. connector end

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
    local order = num(its[1])
    -- What a worker left under way goes before what nobody began, however urgent.
    if its[2] or its[3] or its[4] then order = order - BEGUN_FIRST end
    redis.call('ZREM', P .. 'due:' .. connector, report)
    redis.call('ZADD', P .. 'ready:' .. connector, int(order), report)
  else
    redis.call('ZREM', P .. 'ready:' .. connector, report)
    redis.call('ZADD', P .. 'due:' .. connector, int(at), report)
  end
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

-- Wakes the dispatcher; the list is bounded, one element is enough.
local function wake()
  redis.call('LPUSH', P .. 'wake', '1')
  redis.call('LTRIM', P .. 'wake', 0, 7)
end

-- The owner lets go: its lease, its slot.
local function let_go(key, connector, report)
  free_slot(redis.call('HGET', key, 'group'), connector, report)
  redis.call('HDEL', key, 'owner', 'lease_until', 'group')
  wake()
end

-- The poller's safety net: what is not settled, or has something to do, and has no owner, must be scheduled.
local function heal(connector, report)
  local delivery = redis.call('HMGET', delivery_key(connector, report), 'state', 'owner', 'todo')
  local unsettled = delivery[1] == 'pending' or delivery[1] == 'creating'
    or (delivery[1] == 'created' and (delivery[3] or '[]') ~= '[]')
  if unsettled and not delivery[2] and not redis.call('ZSCORE', P .. 'due:' .. connector, report)
    and not redis.call('ZSCORE', P .. 'ready:' .. connector, report) then
    schedule(connector, report, now)
  end
end

-- This delivery no longer proves that the connector finds what it creates; another one may.
local function drop_proof(connector, report)
  local proof = P .. 'proof:' .. connector
  if redis.call('HGET', proof, 'report') == report and redis.call('HGET', proof, 'state') == 'proving' then
    redis.call('DEL', proof)
  end
end
