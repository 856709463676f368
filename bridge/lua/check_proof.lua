-- Verifies what is said of a connector's proof. ARGV: connector, 1 to mend. Answers '' when nothing is wrong, else the code.
local key = P .. 'proof:' .. ARGV[3]
local proof, exists = hash(key)
if not exists or proof.state == 'proven' then return '' end
if proof.state == 'proving' and tonumber(proof.since) and proof.report
  and redis.call('EXISTS', delivery_key(ARGV[3], proof.report)) == 1 then
  return ''
end
if ARGV[4] == '1' then redis.call('DEL', key) end
return 'vain_proof'
