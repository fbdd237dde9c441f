-- Jobs that take turns ("turns"): one of a key is held at a time, the others are parked, those of backfills ("late")
-- behind all others.
local LATER = 2 ^ 52

-- Whether another one than a backfill's waits for a key, and is due. Whoever is leased meanwhile has the turn, so each
-- key is looked at once in a script.
local SLICE = 100
local awaited = {}
local function look_who_waits(key, now)
  local from, ids = 0, nil
  repeat
    ids = call('ZRANGE', P .. 'open:' .. key, from, from + SLICE - 1)
    for _, id in ipairs(ids) do
      local state, turns, late, run_at =
        unpack(call('HMGET', P .. 'j:' .. id, 'state', 'turns', 'late', 'run_at_ns'))
      if state == 'submitted' and turns and not late and due_us(run_at) <= now then
        return true
      end
    end
    from = from + SLICE
  until #ids < SLICE
  return false
end
local function is_awaited(key, now)
  if awaited[key] == nil then
    awaited[key] = look_who_waits(key, now)
  end
  return awaited[key]
end

-- Take the turn of a key for a job, or park the job and return false.
local function take_turn(key, id, late, order, member, now)
  local turn = P .. 'turn:' .. key
  local holder = call('GET', turn)
  local is_first = true
  if holder and holder ~= id then
    is_first = false
  elseif late then
    is_first = not is_awaited(key, now)
  end
  if not is_first then
    call('ZADD', P .. 'parked:' .. key, late and order + LATER or order, member)
    return false
  end
  call('SET', turn, id)
  return true
end

-- A job holds its turn no more, or wants it no more: if nobody has it, let the first of the parked be claimed.
local function let_go(key, id)
  local turn = P .. 'turn:' .. key
  local holder = call('GET', turn)
  if holder == id then
    call('DEL', turn)
  elseif holder then
    return
  end
  local member = call('ZRANGE', P .. 'parked:' .. key, 0, 0)[1]
  if member then
    call('ZREM', P .. 'parked:' .. key, member)
    local job = P .. 'j:' .. string.sub(member, ID_AT)
    local queue, lane, priority, run_at = unpack(call('HMGET', job, 'queue', 'lane', 'priority', 'run_at_ns'))
    make_ready(queue, lane, tonumber(priority), split(run_at), member)
    call('HSET', job, 'at', 'r')
  end
end
