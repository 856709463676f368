-- Everything that waits for a connector is due now. ARGV: connector, most deliveries to look at, offset to start from.
-- Answers how many were looked at.
local connector = ARGV[3]
local reports = redis.call('ZRANGE', P .. 'due:' .. connector, tonumber(ARGV[5]), tonumber(ARGV[5]) + tonumber(ARGV[4]) - 1)
local moved = 0
for _, report in ipairs(reports) do
  local key = delivery_key(connector, report)
  local delivery = hash(key)
  local in_doubt = delivery.state == 'creating' and delivery.doubt_at
  if not delivery.owner and not in_doubt and num(delivery.next_at) > now then
    redis.call('HSET', key, 'next_at', int(now))
    schedule(connector, report, now)
    touch(connector, report)
    moved = moved + 1
  end
end
wake()
return {#reports, moved}
