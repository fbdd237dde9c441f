-- Store new jobs on which nothing hangs but their rows. ARGV: sender, how many; for each its id, task, queue, lane,
-- priority, "at" and an instant or "in" and microseconds and a rest, more fields of j:, and the fields of d:.
-- Returns now. Members of one set are added together: each command costs as much as several members.
local now = now_us()
local now_ns = ns_of(now)
local sender, n = arg(), count()
local first = call('INCRBY', P .. 'seq', n) - n
local together = {}
local function add_later(key, score, member)
  local set = together[key]
  if not set then
    set = {}
    together[key] = set
  end
  local n = #set
  set[n + 1], set[n + 2] = score, member
end

local lanes = {}
local all, delayed = P .. 'all', P .. 'delayed'
for i = first + 1, first + n do
  local id, task, queue, lane, priority, how = arg(), arg(), arg(), arg(), arg(), arg()
  local run_at, us, rest
  if how == 'at' then
    run_at = arg()
    us, rest = split(run_at)
  else
    us, rest = now + count(), arg()
    run_at = whole(us) .. rest
  end
  local seq = string.format('%014.0f', i)
  local due, at = rest == '000' and us or us + 1, 'r'
  if due > now then
    at = 'd'
    add_later(delayed, due, rest .. seq .. id)
  else
    local name = two(queue, lane)
    lanes[name] = lanes[name] or { queue, lane }
    add_later(P .. 'ready:' .. name, us + priority * AGING_US, rest .. seq .. id)
  end
  add_later(all, i, id)
  local key = P .. 'j:' .. id
  local from, to = list()
  call(
    'HSET', key, 'rev', 1, 'at', at, 'seq', seq, 'state', 'submitted', 'plain', 1, 'task', task, 'queue', queue,
    'lane', lane, 'priority', priority, 'submitted_at_ns', now_ns, 'run_at_ns', run_at, unpack(ARGV, from, to)
  )
  from, to = list()
  if to >= from then
    call('HSET', P .. 'd:' .. id, unpack(ARGV, from, to))
    call('HSET', key, 'has_data', 1)
  end
  add(waits, queue, 1)
end
for key, set in pairs(together) do
  on_all('ZADD', key, set)
end
for _, lane in pairs(lanes) do
  call('SADD', P .. 'lanes:' .. lane[1], lane[2])
end
add(moves, 'submitted', n)
settle(now)
tell_of_jobs(sender)
return whole(now)
