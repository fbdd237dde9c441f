-- uses: waiting, turns
-- Write what was decided, if nothing has changed since it was read. ARGV: the sender; 1 if a full memory is not to stop
-- it (it moves jobs on and adds none); what was read, as triples of kind, name and what was seen; then what to write: jobs, schedules, unique keys, occurrences, and hints.
-- Returns 1, or 0 where something had changed and nothing was written.
local now = now_us()
local sender, gets_through = arg(), arg() == '1'
local HELD = { scheduled = true, started = true, running = true }
local OPEN = { submitted = true, scheduled = true, started = true, running = true }
local BAR = '\31'

-- What was read ---------------------------------------------------------------------------------------------

local function held_up(key)
  local ids = call('SMEMBERS', key)
  table.sort(ids)
  return table.concat(ids, BAR)
end
local LOOK = {}
function LOOK.job(id)
  return call('HGET', P .. 'j:' .. id, 'rev') or ''
end
function LOOK.schedule(id)
  return call('HGET', P .. 'sched:' .. id, 'rev') or ''
end
function LOOK.key(key)
  return table.concat(call('ZRANGE', P .. 'open:' .. key, 0, -1), BAR)
end
function LOOK.unique(name)
  local holder, ends = unpack(call('HMGET', P .. 'unique:' .. name, 'id', 'until'))
  return (holder or '') .. BAR .. (ends or '')
end
function LOOK.held(key)
  return held_up(P .. 'held:' .. key)
end
function LOOK.barred(name)
  return held_up(P .. 'barred:' .. name)
end
function LOOK.made(name)
  local length, rest = string.match(name, '^(%d+):(.*)$')
  return call('HGET', P .. 'made:' .. string.sub(rest, 1, length), string.sub(rest, length + 1)) or ''
end

for _ = 1, count() do
  local look, name, was = LOOK[arg()], arg(), arg()
  if look(name) ~= was then
    return 0
  end
end

if gets_through then
  get_through()
end

-- Jobs -------------------------------------------------------------------------------------------------------

local FACTS = {
  'state', 'at', 'zombie', 'task', 'queue', 'lane', 'priority', 'run_at_ns', 'seq', 'overlap_key', 'turns', 'late',
  'lease_until_ns', 'finished_at_ns', 'rev',
}
local function facts(key)
  local values, j = call('HMGET', key, unpack(FACTS)), {}
  for i = 1, #FACTS do
    j[FACTS[i]] = values[i]
  end
  j.has_turn = j.turns and (HELD[j.state] or j.zombie)
  if j.late then -- backfills are in nobody's way but while they have their turn
    j.is_open = j.has_turn
  else
    j.is_open = j.overlap_key and (OPEN[j.state] or j.zombie)
  end
  return j
end

local function take_out(id, j)
  if j.at == '' then
    return
  end
  if j.at == 'f' then
    call('ZREM', P .. 'done', id)
    return
  end
  local member = string.sub('00' .. j.run_at_ns, -3) .. j.seq .. id
  if j.at == 'r' then
    drop_ready(j.queue, j.lane, member)
  elseif j.at == 'd' then
    call('ZREM', P .. 'delayed', member)
  elseif j.at == 'p' then
    call('ZREM', P .. 'parked:' .. j.overlap_key, member)
  end
end

local function put_in(id, j)
  if j.state == 'submitted' then
    return enqueue(id, j.queue, j.lane, tonumber(j.priority), j.run_at_ns, j.seq, now)
  elseif not OPEN[j.state] and not j.zombie then
    call('ZADD', P .. 'done', split(j.finished_at_ns), id)
    return 'f'
  end
end

local function count_states(before, after)
  if before.state ~= after.state then
    if before.state then
      add(moves, before.state, -1)
    end
    add(moves, after.state, 1)
    if not OPEN[after.state] then
      add(ends, after.task .. BAR .. after.state, 1)
    end
  end
  add(waits, after.queue, (after.state == 'submitted' and 1 or 0) - (before.state == 'submitted' and 1 or 0))
end

local function write_hash(key)
  local from, to = list()
  if to >= from then
    call('HSET', key, unpack(ARGV, from, to))
  end
  from, to = list()
  if to >= from then
    call('HDEL', key, unpack(ARGV, from, to))
  end
end

local function write_job(id)
  local key = P .. 'j:' .. id
  local before = facts(key)
  if not before.seq then
    local number = call('INCR', P .. 'seq')
    call('HSET', key, 'seq', string.format('%014.0f', number))
    call('ZADD', P .. 'all', number, id)
  end
  if before.at then
    take_out(id, before)
  end
  write_hash(key)
  write_hash(P .. 'd:' .. id)
  local after = facts(key)
  if after.lease_until_ns then
    call('ZADD', P .. 'leases', due_us(after.lease_until_ns), id)
  elseif before.lease_until_ns then
    call('ZREM', P .. 'leases', id)
  end
  if after.is_open then
    call('ZADD', P .. 'open:' .. after.overlap_key, tonumber(after.seq), id)
  elseif before.is_open then
    call('ZREM', P .. 'open:' .. before.overlap_key, id)
  end
  call('HSET', key, 'at', put_in(id, after) or '', 'rev', (before.rev or 0) + 1, 'has_data', 1)
  count_states(before, after)
  if after.has_turn then
    call('SET', P .. 'turn:' .. after.overlap_key, id)
  elseif before.has_turn or (before.turns and before.at == 'r') then
    return after.overlap_key
  end
end

local free = {}
for _ = 1, count() do
  local id = arg()
  local key = write_job(id)
  if key then
    free[#free + 1] = { key, id }
  end
end
for i = 1, #free do -- when all are where they belong: the next one in line may be among them
  let_go(free[i][1], free[i][2])
end

-- Schedules --------------------------------------------------------------------------------------------------

local function index(fields, command)
  local id, overlap_key, barred_by = fields.id, fields.overlap_key, fields.barred_by
  if fields.held_up_ns then
    call(command, P .. 'held:' .. overlap_key, id)
    if barred_by then
      call(command, P .. 'barred:' .. barred_by, id)
    end
  end
end
local function schedule_facts(id)
  local values = call('HMGET', P .. 'sched:' .. id, 'overlap_key', 'barred_by', 'held_up_ns', 'wake_ns', 'rev')
  return {
    id = id, overlap_key = values[1], barred_by = values[2], held_up_ns = values[3], wake_ns = values[4],
    rev = values[5],
  }
end
for _ = 1, count() do
  local id, is_gone = arg(), arg() == '1'
  local key, before = P .. 'sched:' .. id, schedule_facts(id)
  index(before, 'SREM')
  write_hash(key)
  if is_gone then
    call('DEL', key, P .. 'made:' .. id)
    call('ZREM', P .. 'scheds', id)
    call('ZREM', P .. 'due', id)
  else
    call('HSET', key, 'rev', call('INCR', P .. 'seq'))
    call('ZADD', P .. 'scheds', 0, id)
    local after = schedule_facts(id)
    index(after, 'SADD')
    if after.wake_ns then
      call('ZADD', P .. 'due', due_us(after.wake_ns), id)
    else
      call('ZREM', P .. 'due', id)
    end
  end
end

-- Unique keys, occurrences, hints ------------------------------------------------------------------------------

for _ = 1, count() do
  local key, id, ends = P .. 'unique:' .. arg(), arg(), arg()
  call('DEL', key)
  if id ~= '' then
    call('HSET', key, 'id', id)
    if ends ~= '' then
      call('HSET', key, 'until', ends)
      call('PEXPIRE', key, whole(math.max(1, math.ceil((due_us(ends) - now) / 1000))))
    end
  end
end
for _ = 1, count() do
  local schedule, fire_time, id = arg(), arg(), arg()
  call('HSET', P .. 'made:' .. schedule, fire_time, id)
end
settle(now)
for _ = 1, count() do
  local hint, ids = arg(), arg()
  if hint == 'jobs' then
    tell_of_jobs(sender)
  else
    tell(sender, hint, ids)
  end
end
return 1
