-- What is scheduled for a connector and more than a wait for what may take long. ARGV: connector, JSON of the things to do that
-- may, 'due' or 'ready', how many of its entries to pass over, most entries to look at. Answers how many were looked at, and
-- the reports.
local connector, later, found = ARGV[3], {}, {}
for _, item in ipairs(cjson.decode(ARGV[4])) do later[item] = true end
local from = tonumber(ARGV[6])
local entries = redis.call('ZRANGE', P .. ARGV[5] .. ':' .. connector, from, from + tonumber(ARGV[7]) - 1)
for _, report in ipairs(entries) do
  if unfinished(connector, report, later) then found[#found + 1] = report end
end
return {#entries, found}
