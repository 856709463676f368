-- Prolongs owners' leases. ARGV: lease in ms, JSON [[report, connector, owner token], …]. Answers 1 for each, or 0 where the
-- token is not the owner's; 'reborn' when the store was born anew.
if not same_birth() then return 'reborn' end
local lease, held = tonumber(ARGV[3]), {}
for _, claim in ipairs(cjson.decode(ARGV[4])) do
  local report, connector, token = claim[1], claim[2], claim[3]
  local key = delivery_key(connector, report)
  adjust(connector, report)
  local delivery = hash(key)
  if delivery.owner == token then
    redis.call('HSET', key, 'lease_until', int(now + lease))
    redis.call('ZADD', P .. 'slots:' .. delivery.group, int(now + lease), member(connector, report))
    schedule(connector, report, now + lease)
    held[#held + 1] = 1
  else
    held[#held + 1] = 0
  end
end
return held
