-- Pauses a connector. ARGV: connector, kind ('rate', 'misconfigured' or 'unfindable'), ms, reason, first probe in ms
-- (0: no probe, the pause just ends), report whose ticket could not be found ('' otherwise).
-- Answers 1 when this is news.
local key, proof = P .. 'pause:' .. ARGV[3], P .. 'proof:' .. ARGV[3]
-- A failed proof does not expire as one under way does.
if ARGV[4] == 'unfindable' and redis.call('HGET', proof, 'report') == ARGV[8] then redis.call('HSET', proof, 'failed', '1') end
local pause = hash(key)
local active = ahead(pause['until'], LONGEST_WAIT) > now
if active and ARGV[4] == 'rate' and (pause.kind ~= 'rate' or num(pause['until']) >= now + tonumber(ARGV[5])) then return 0 end
if active and pause.kind == ARGV[4] and ARGV[4] ~= 'rate' then
  redis.call('HSET', key, 'reason', ARGV[6])
  return 0
end
-- A pause that follows upon another, with nothing delivered in between (`record` clears it), is the same trouble going on.
local since = now
if pause.since and num(pause['until']) >= now - 60000 then since = math.min(num(pause.since), now) end
redis.call('DEL', key)
redis.call('HSET', key, 'kind', ARGV[4], 'until', int(now + tonumber(ARGV[5])), 'reason', ARGV[6], 'since', int(since),
  'report', ARGV[8])
if tonumber(ARGV[7]) > 0 then
  redis.call('HSET', key, 'step', ARGV[7], 'next_probe', int(now + tonumber(ARGV[7])))
end
return 1
