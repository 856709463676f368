-- A delivery whose record is lost, or has no reference: what is known of it is written anew, and it is looked up before anything
-- is made. ARGV: report, connector, reference, organization ('' unknown), severity, order. Answers 1, or 0 when it is there.
local report, connector, key = ARGV[3], ARGV[4], delivery_key(ARGV[4], ARGV[3])
local its = redis.call('HMGET', key, 'state', 'reference', 'ticket_url')
if is_reference(lengthened(its[2] or nil, report)) then return 0 end
redis.call('HSET', key, 'reference', ARGV[5])
if string.find(its[3] or '', '^#%d+$') then redis.call('HDEL', key, 'ticket_url') end -- what stood for it is lost as well
if its[1] then return 1 end
redis.call('HSET', key, 'order', ARGV[8], 'created_at', int(now), 'organization', ARGV[6], 'severity', ARGV[7], 'attempts', 0,
  'doubt_at', int(now), 'looked', 0)
for _, state in ipairs({'pending', 'created', 'rejected', 'held', 'closed', 'handled', 'gone'}) do
  redis.call('ZREM', P .. 'state:' .. state, member(connector, report))
end
set_state(connector, report, 'creating')
remember(connector, report, 'doubtful', 'what the store knew of this delivery was lost; its ticket is looked up')
schedule(connector, report, now)
wake()
return 1
