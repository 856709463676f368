-- The source was asked to resolve a report whose tickets people closed. ARGV: leader number, report, digest of the report as it
-- was then ('': it may be asked again though nothing changed), why it was not resolved ('': it was), name of the note to add,
-- JSON [connector, …]. Answers 1.
if not same_birth() then return 'reborn' end
if not leads('poller', ARGV[3]) then return 'deposed' end
local report, why, item = ARGV[4], ARGV[6], ARGV[7]
local key = P .. 'report:' .. report
if ARGV[5] ~= '' then redis.call('HSET', key, 'resolve_asked', ARGV[5]) end
redis.call('HSET', key, 'unresolved', why)
if why == '' then return 1 end
for _, connector in ipairs(cjson.decode(ARGV[8])) do
  local delivery = redis.call('HMGET', delivery_key(connector, report), 'state', 'owner', 'todo')
  if delivery[1] == 'created' or delivery[1] == 'closed' then
    local todo = {}
    for _, each in ipairs(cjson.decode(delivery[3] or '[]')) do
      if each ~= item then todo[#todo + 1] = each end
    end
    todo[#todo + 1] = item
    redis.call('HSET', delivery_key(connector, report), 'todo', cjson.encode(todo))
    if not delivery[2] then
      redis.call('HDEL', delivery_key(connector, report), 'next_at') -- of what it waits for, such as details
      schedule(connector, report, now)
    end
  end
end
wake()
return 1
