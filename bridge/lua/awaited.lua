-- What is scheduled for a connector and more than a wait for what may take long. ARGV: connector, JSON of the things to do that
-- may. Answers the reports.
local connector, later, found = ARGV[3], {}, {}
for _, item in ipairs(cjson.decode(ARGV[4])) do later[item] = true end
for _, place in ipairs({'ready:', 'due:'}) do
  for _, report in ipairs(redis.call('ZRANGE', P .. place .. connector, 0, -1)) do
    if unfinished(connector, report, later) then found[#found + 1] = report end
  end
end
return found
