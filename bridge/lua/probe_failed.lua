-- A paused connector's probe failed: the next one comes after twice the time. ARGV: connector, reason, longest step in ms,
-- pause in ms, shortest time until the next probe in ms.
local key = P .. 'pause:' .. ARGV[3]
local pause, exists = hash(key)
if not exists then return 0 end
local step = math.min(num(pause.step) * 2, tonumber(ARGV[5]))
redis.call('HSET', key, 'reason', ARGV[4], 'step', int(step), 'next_probe', int(now + math.max(step, num(ARGV[7]))), 'until', int(now + tonumber(ARGV[6])))
return 1
