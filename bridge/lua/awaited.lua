-- Which of these reports a connector has more to do for than a wait for what may take long. ARGV: connector, JSON of the things to
-- do that may, JSON of the reports.
local connector, later, found = ARGV[3], {}, {}
for _, item in ipairs(cjson.decode(ARGV[4])) do later[item] = true end
for _, report in ipairs(cjson.decode(ARGV[5])) do
  if unfinished(connector, report, later) then found[#found + 1] = report end
end
return found
