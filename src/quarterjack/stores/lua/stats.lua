-- uses: waiting
-- Count for views. Returns {states, waiting by queue, the oldest instant already due or ""}. The oldest is looked
-- for among the most urgent jobs of each lane.
local now = now_us()
local oldest_us, oldest = nil, ''
local function look(member)
  local run_at = member and call('HGET', P .. 'j:' .. string.sub(member, ID_AT), 'run_at_ns')
  if run_at and due_us(run_at) <= now and (not oldest_us or split(run_at) < oldest_us) then
    oldest_us, oldest = split(run_at), run_at
  end
end
local waiting = call('HGETALL', P .. 'waiting')
for i = 1, #waiting, 2 do
  for _, lane in ipairs(call('SMEMBERS', P .. 'lanes:' .. waiting[i])) do
    look(call('ZRANGE', ready_key(waiting[i], lane), 0, 0)[1])
  end
end
look(call('ZRANGE', P .. 'delayed', 0, 0)[1])
return { call('HGETALL', P .. 'states'), waiting, oldest }
