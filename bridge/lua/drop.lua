-- There is no ticket to take over for a report that is over: its delivery goes. ARGV: report, connector, owner token.
-- Answers 1, or 0 when it is not the owner any more, or when the delivery is wanted by now (then nothing changes).
local report, connector = ARGV[3], ARGV[4]
local key = delivery_key(connector, report)
local its = redis.call('HMGET', key, 'owner', 'adopt', 'state')
if its[1] ~= ARGV[5] or not its[2] or its[3] ~= 'pending' then return 0 end
let_go(key, connector, report)
unschedule(connector, report)
redis.call('ZREM', P .. 'state:pending', member(connector, report))
redis.call('ZREM', P .. 'waiting:' .. connector, report)
redis.call('DEL', key, P .. 'progress:' .. report .. ':' .. connector, P .. 'history:' .. report .. ':' .. connector)
touch(connector, report)
local others = false
for _, field in ipairs(redis.call('HKEYS', P .. 'meta')) do
  local name = string.match(field, '^clock:(.+)$')
  others = others or (name and redis.call('EXISTS', delivery_key(name, report)) == 1)
end
if not others then redis.call('DEL', P .. 'report:' .. report) end
return 1
