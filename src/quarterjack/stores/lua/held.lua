-- Whom an owner holds that has not begun. ARGV: the owner. Returns ids and attempts in turn.
local owner = arg()
local held = {}
for _, id in ipairs(call('ZRANGE', P .. 'leases', 0, -1)) do
  local j = call('HMGET', P .. 'j:' .. id, 'owner', 'state', 'attempt')
  if j[1] == owner and j[2] == 'scheduled' then
    held[#held + 1] = id
    held[#held + 1] = j[3]
  end
end
return held
