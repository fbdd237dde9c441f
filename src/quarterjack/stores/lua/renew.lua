-- Extend leases and keep what bodies want kept. ARGV: owner, the lease in microseconds or "", how many; for each
-- its id, attempt, when its body began or "", when a queue elsewhere took it or "", and the fields of d:.
-- A full memory does not stop it: who would not be renewed would be run again.
-- Returns {ids that are lost, ids that somebody wants cancelled}.
local now = now_us()
local owner, lease_us = arg(), tonumber(arg())
local BEGINS = { scheduled = true, started = true }
local lost, cancelled = {}, {}
get_through()
for _ = 1, count() do
  local id, attempt, running_at, started_at = arg(), arg(), arg(), arg()
  local from, to = list()
  local key = P .. 'j:' .. id
  local j = call('HMGET', key, 'attempt', 'owner', 'cancel_requested', 'rev', 'state', 'started_at_ns')
  if j[1] ~= attempt or j[2] ~= owner then
    lost[#lost + 1] = id
  else
    call('HSET', key, 'rev', j[4] + 1)
    if running_at ~= '' and BEGINS[j[5]] then
      local since = j[6] or (started_at ~= '' and started_at) or running_at
      call('HSET', key, 'state', 'running', 'running_at_ns', running_at, 'started_at_ns', since)
      add(moves, j[5], -1)
      add(moves, 'running', 1)
    elseif started_at ~= '' and j[5] == 'scheduled' then
      call('HSET', key, 'state', 'started', 'started_at_ns', started_at)
      add(moves, 'scheduled', -1)
      add(moves, 'started', 1)
    end
    if lease_us then
      call('HSET', key, 'lease_until_ns', ns_of(now + lease_us))
      call('ZADD', P .. 'leases', now + lease_us, id)
    end
    if to >= from then
      call('HSET', P .. 'd:' .. id, unpack(ARGV, from, to))
    end
    if j[3] then
      cancelled[#cancelled + 1] = id
    end
  end
end
settle(now)
return { lost, cancelled }
