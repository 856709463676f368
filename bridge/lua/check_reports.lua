-- Verifies reports, each in this one moment. ARGV: JSON [[report, digest of a snapshot that cannot be read, or ''], …], 1 to mend.
-- Answers as check_deliveries.lua does.
local mend, found = ARGV[4] == '1', {}
local function check(place, report, unreadable)
  local key = P .. 'report:' .. report
  local its = redis.call('HMGET', key, 'version', 'digest', 'over')
  local open, missing = redis.call('ZSCORE', P .. 'open', report), redis.call('ZSCORE', P .. 'missing', report)
  local function finds(code, repair)
    if mend then repair() end
    found[#found + 1] = {place, code, mend and 1 or 0}
  end
  if open and missing then
    finds('open_and_missing', function() redis.call('ZREM', P .. 'missing', report) end)
  end
  if its[3] == '1' and (open or missing) then
    finds('over_and_open', function()
      redis.call('ZREM', P .. 'open', report)
      redis.call('ZREM', P .. 'missing', report)
      redis.call('HDEL', key, 'digest') -- should it be listed all the same, it is written anew
    end)
  elseif its[2] and its[3] ~= '1' and not open and not missing then
    finds('forgotten', function() redis.call('ZADD', P .. 'missing', int(now), report) end)
  end
  if its[1] and not tonumber(its[1]) then -- above all that its tickets were told
    finds('unreadable_report', function()
      redis.call('HDEL', key, 'digest')
      redis.call('HSET', key, 'version', int(now))
    end)
  elseif unreadable ~= '' and its[2] == unreadable and (open or missing) then
    finds('unreadable_report', function() redis.call('HDEL', key, 'digest') end)
  end
end
for place, pair in ipairs(cjson.decode(ARGV[3])) do check(place - 1, pair[1], pair[2]) end
return #found > 0 and cjson.encode(found) or '[]'
