-- Many deliveries at once, for lists: one JSON text, because it is read far faster than thousands of replies. Changes nothing.
-- ARGV: JSON [[report, connector], …], JSON of the names of a delivery's fields, JSON of the names of what is wanted of the
-- report's snapshot. Answers JSON: for each the values of the fields, then why its report counts as open though no longer
-- listed, then what the snapshot says; false where there is none. Stops when it had to read much: the caller asks for the rest.
local MOST_READ = 250000
local fields, wanted, found = cjson.decode(ARGV[4]), cjson.decode(ARGV[5]), {}
local names = cjson.decode(ARGV[4])
for _, name in ipairs({'moments', 'ticket_id'}) do names[#names + 1] = name end
local read = 0
for i, pair in ipairs(cjson.decode(ARGV[3])) do
  local raw, its_fields, values = redis.call('HMGET', delivery_key(pair[2], pair[1]), unpack(names)), {}, {}
  for n, name in ipairs(names) do its_fields[name] = raw[n] or nil end
  its_fields = expanded(its_fields, pair[1])
  for n, name in ipairs(fields) do values[n] = its_fields[name] or false end
  local its = redis.call('HMGET', P .. 'report:' .. pair[1], 'missing_why', #wanted > 0 and 'snapshot' or 'none')
  values[#fields + 1] = its[1]
  local readable, snapshot = pcall(cjson.decode, its[2] or '')
  for n, name in ipairs(wanted) do
    local value = readable and snapshot[name] or nil
    values[#fields + 1 + n] = value ~= nil and value ~= cjson.null and tostring(value) or false
  end
  found[i] = values
  read = read + #(its[2] or '')
  if read > MOST_READ then break end
end
return #found > 0 and cjson.encode(found) or '[]'
