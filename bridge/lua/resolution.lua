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
  local state = redis.call('HGET', delivery_key(connector, report), 'state')
  if state == 'created' or state == 'closed' then add_todo(connector, report, item) end
end
wake()
return 1
