-- What is scheduled for a connector and more than a wait for what may take long. ARGV: connector, JSON of the things to do that
-- may. Answers the reports.
local connector, later, found = ARGV[3], {}, {}
for _, item in ipairs(cjson.decode(ARGV[4])) do later[item] = true end
for _, place in ipairs({'ready:', 'due:'}) do
  for _, report in ipairs(redis.call('ZRANGE', P .. place .. connector, 0, -1)) do
    local its = redis.call('HMGET', delivery_key(connector, report), 'state', 'todo', 'plan', 'told', 'considered', 'ended_at')
    local awaited = its[1] == 'pending' or its[1] == 'creating' or (its[3] or '') ~= '' or behind(report, {its[4], its[5], its[6]})
    for _, item in ipairs(cjson.decode(its[2] or '[]')) do awaited = awaited or not later[item] end
    if awaited then found[#found + 1] = report end
  end
end
return found
