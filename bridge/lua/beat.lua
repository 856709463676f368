-- Signs of life. ARGV: ms that one is kept, then by turns who lives and why it does not do its work ('' while it does).
local key, kept = P .. 'heartbeats', tonumber(ARGV[3]) / 1000
for i = 4, #ARGV, 2 do
  redis.call('HSET', key, ARGV[i], cjson.encode({at = now / 1000, problem = ARGV[i + 1]}))
end
for name, beat in pairs((hash(key))) do
  if math.abs(now / 1000 - cjson.decode(beat).at) > kept then redis.call('HDEL', key, name) end
end
