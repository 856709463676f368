-- The poller saw these reports unchanged or not. ARGV: leader number, JSON [[report, digest, [connector, …]], …], where a report
-- that no connector takes, or that cannot be read, has the digest '': it is open, as far as the store knows of it.
-- Answers the reports whose snapshot or deliveries must be written, or 'reborn' / 'deposed'.
if not same_birth() then return 'reborn' end
if not leads('poller', ARGV[3]) then return 'deposed' end

-- Would `heal` find nothing to do for a delivery? In as few calls as can be; nil where there is no delivery.
local function at_rest(connector, report, version, over)
  local its = redis.call('HMGET', delivery_key(connector, report), 'state', 'todo', 'plan', 'told', 'considered', 'ended_at', 'moments')
  if not its[1] then return nil end
  if its[1] == 'pending' or its[1] == 'creating' then
    return redis.call('ZSCORE', P .. 'waiting:' .. connector, report)
      and (redis.call('ZSCORE', P .. 'ready:' .. connector, report) or redis.call('ZSCORE', P .. 'due:' .. connector, report))
      and true or false
  end
  if its[1] ~= 'created' and its[1] ~= 'closed' then return true end
  return (its[2] or '[]') == '[]' and (its[3] or '') == '' and version <= math.max(num(its[4]), num(its[5]))
    and over == ((its[6] or ended(its[7])) and true or false)
end

local wanted, open = {}, {}
for _, item in ipairs(cjson.decode(ARGV[4])) do
  local report, digest, connectors = item[1], item[2], item[3]
  if digest == '' then
    if redis.call('ZSCORE', P .. 'open', report) or redis.call('ZSCORE', P .. 'missing', report) then
      open[#open + 1] = report
    end
  else
    local its = redis.call('HMGET', P .. 'report:' .. report, 'digest', 'version', 'over')
    local known, restless = its[1] == digest, {}
    for _, connector in ipairs(connectors) do
      local rests = known and at_rest(connector, report, num(its[2]), its[3] == '1')
      if rests == nil then known = false end
      if rests == false then restless[#restless + 1] = connector end
    end
    if known then
      open[#open + 1] = report
      for _, connector in ipairs(restless) do heal(connector, report) end
    else
      wanted[#wanted + 1] = report
    end
  end
end
-- As `listed` does, but of all that are not missing at once.
local at = int(now)
local any_missing, members = redis.call('EXISTS', P .. 'missing') == 1, {}
for i, report in ipairs(open) do
  if any_missing then listed(report) end
  members[#members + 1] = at
  members[#members + 1] = report
  if #members == 1000 or i == #open then
    redis.call('ZADD', P .. 'open', unpack(members))
    members = {}
  end
end
return wanted
