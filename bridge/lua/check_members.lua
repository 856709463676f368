-- Verifies entries of one index that no delivery's check sees. ARGV: 'slots', 'open', 'missing', 'waiting', 'due', 'ready' or 'state'
-- (an entry that names nothing), 'notices' or 'notice', the index's name after the prefix, JSON [entry, …], 1 to mend.
-- Answers as check_deliveries.lua does.
local kind, name, mend, found = ARGV[3], ARGV[4], ARGV[6] == '1', {}
for i, entry in ipairs(cjson.decode(ARGV[5])) do
  local code, repair
  if kind == 'notices' then
    if redis.call('SISMEMBER', P .. name, entry) == 1 and redis.call('EXISTS', P .. 'notice:' .. entry) == 0 then
      code, repair = 'no_notice', function() redis.call('SREM', P .. name, entry) end
    end
  elseif kind == 'notice' then
    if redis.call('EXISTS', P .. 'notice:' .. entry) == 1 and redis.call('SISMEMBER', P .. 'notices', entry) == 0 then
      code, repair = 'unlisted_notice', function() redis.call('SADD', P .. 'notices', entry) end
    end
  elseif kind == 'slots' then
    local report, connector = string.match(entry, '^(.-)|(.*)$')
    if redis.call('ZSCORE', P .. name, entry) and not (report and redis.call('EXISTS', delivery_key(connector, report)) == 1) then
      code, repair = 'vain_slot', function() redis.call('ZREM', P .. name, entry) end
    end
  elseif redis.call('ZSCORE', P .. name, entry) then
    code, repair = 'no_name', function() redis.call('ZREM', P .. name, entry) end
  end
  if code then
    if mend then repair() end
    found[#found + 1] = {i - 1, code, mend and 1 or 0}
  end
end
return #found > 0 and cjson.encode(found) or '[]'
