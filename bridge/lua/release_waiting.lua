-- Everything that waits for a connector is due now. ARGV: connector, most deliveries to look at, offset to start from.
-- Answers how many were looked at.
local connector = ARGV[3]
local reports = redis.call('ZRANGE', P .. 'due:' .. connector, tonumber(ARGV[5]), tonumber(ARGV[5]) + tonumber(ARGV[4]) - 1)
local moved = 0
for _, report in ipairs(reports) do
  local key = delivery_key(connector, report)
  adjust(connector, report)
  local its = redis.call('HMGET', key, 'state', 'doubt_at', 'owner', 'next_at')
  local in_doubt = its[1] == 'creating' and its[2]
  if not its[3] and not in_doubt and num(its[4]) > now then
    redis.call('HSET', key, 'next_at', int(now))
    schedule(connector, report, now)
    touch(connector, report)
    moved = moved + 1
  end
end
wake()
return {#reports, moved}
