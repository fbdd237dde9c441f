-- Where jobs wait. A member is the rest of the microsecond, the number and the id: 3 + 14 + any characters.
local ID_AT = 18

local function ready_key(queue, lane)
  return P .. 'ready:' .. two(queue, lane)
end

local function make_ready(queue, lane, priority, us, member)
  call('ZADD', ready_key(queue, lane), us + priority * AGING_US, member)
  call('SADD', P .. 'lanes:' .. queue, lane)
end

-- Let a job wait for its time, or for a worker; returns where: 'd' or 'r'.
local function enqueue(id, queue, lane, priority, run_at, seq, now)
  local us, rest = split(run_at)
  local member = rest .. seq .. id
  local due = rest == '000' and us or us + 1
  if due > now then
    call('ZADD', P .. 'delayed', due, member)
    return 'd'
  end
  make_ready(queue, lane, priority, us, member)
  return 'r'
end

local function drop_ready(queue, lane, member)
  local key = ready_key(queue, lane)
  call('ZREM', key, member)
  if call('EXISTS', key) == 0 then
    call('SREM', P .. 'lanes:' .. queue, lane)
  end
end
