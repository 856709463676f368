-- A process starts, or a connector's settings changed. ARGV: connector, digest of its settings, whether they are known to have
-- changed (1 or 0). With other settings the proof that its tickets can be found begins anew. With the same ones the next create
-- proves again what was proven; but a proof under way or one that failed stands, else every restart would make one more
-- ticket that cannot be found.
local proof, field = P .. 'proof:' .. ARGV[3], 'settings:' .. ARGV[3]
local known = redis.call('HGET', P .. 'meta', field)
if ARGV[4] ~= '' then redis.call('HSET', P .. 'meta', field, ARGV[4]) end
local changed = ARGV[5] == '1' or (known and known ~= ARGV[4])
if changed or redis.call('HGET', proof, 'state') == 'proven' then redis.call('DEL', proof) end
-- Who starts with other settings wants to know at once; who reads them again first puts them to use, and then asks itself.
if changed and ARGV[5] ~= '1' and redis.call('HEXISTS', P .. 'pause:' .. ARGV[3], 'next_probe') == 1 then
  redis.call('HSET', P .. 'pause:' .. ARGV[3], 'next_probe', 0)
end
return 0
