-- Adds what a process counted of its requests. ARGV: the process, number of this batch, JSON {field: how many, …}.
-- Answers 1, or 0 when this batch was added before.
local mark = P .. 'counted:' .. ARGV[3]
if num(redis.call('GET', mark)) >= tonumber(ARGV[4]) then return 0 end
for field, by in pairs(cjson.decode(ARGV[5])) do count('request:' .. field, by) end
redis.call('SET', mark, ARGV[4], 'PX', DAY)
return 1
