-- The poller saw these reports unchanged or not. ARGV: leader number, JSON [[report, digest, [connector, …]], …], where a report
-- that no connector takes, or that cannot be read, has the digest '': it is open, as far as the store knows of it.
-- Answers the reports whose snapshot or deliveries must be written, or 'reborn' / 'deposed'.
if not same_birth() then return 'reborn' end
if not leads('poller', ARGV[3]) then return 'deposed' end
local wanted = {}
for _, item in ipairs(cjson.decode(ARGV[4])) do
  local report, digest, connectors = item[1], item[2], item[3]
  local known = redis.call('HGET', P .. 'report:' .. report, 'digest') == digest
  for _, connector in ipairs(connectors) do
    known = known and redis.call('EXISTS', delivery_key(connector, report)) == 1
  end
  if digest == '' then
    if redis.call('ZSCORE', P .. 'open', report) or redis.call('ZSCORE', P .. 'missing', report) then listed(report) end
  elseif known then
    listed(report)
    for _, connector in ipairs(connectors) do heal(connector, report) end
  else
    wanted[#wanted + 1] = report
  end
end
return wanted
