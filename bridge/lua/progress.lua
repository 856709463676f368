-- Remembers one thing about a create in progress. ARGV: report, connector, owner token, key, value.
-- Answers 1, 0 when it is not the owner any more, -1 when the store was born anew.
if not same_birth() then return -1 end
local delivery = hash(delivery_key(ARGV[4], ARGV[3]))
if delivery.owner ~= ARGV[5] then return 0 end
redis.call('HSET', P .. 'progress:' .. ARGV[3] .. ':' .. ARGV[4], ARGV[6], ARGV[7])
return 1
