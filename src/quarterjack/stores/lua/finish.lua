-- uses: waiting
-- Record how attempts ended, or give jobs back unrun. ARGV: sender, how many; for each its id, attempt, owner,
-- how ("release", "retry", "snooze", or the state it ends in), when, when it was started and began to run or "",
-- a delay in microseconds and its rest, and the fields of d:.
-- Returns for each the state it has now, "" where it is refused, "-" for a job that more than its row hangs on
-- (overlap, unique key, schedule): those are not touched.
local now = now_us()
local sender, n = arg(), count()
local FAILED = { failed = true, timed_out = true }
local HELD = { scheduled = true, started = true, running = true }
local answers, over = {}, {}
local unleased, done = {}, {}
local is_back = false

local function finish(id, attempt, owner, how, at, started, running, delay, rest, from, to)
  local key, data = P .. 'j:' .. id, P .. 'd:' .. id
  local j = call(
    'HMGET', key, 'attempt', 'owner', 'state', 'plain', 'task', 'queue', 'lane', 'priority', 'run_at_ns', 'seq',
    'failures', 'cancel_requested', 'rev'
  )
  local state = j[3]
  if j[1] ~= attempt or j[2] ~= owner or not HELD[state] then
    return ''
  end
  if not j[4] then
    return '-'
  end
  local set = { 'rev', j[13] + 1 }
  local function put(name, value)
    set[#set + 1] = name
    set[#set + 1] = value
  end
  local after = how
  local goes_back = how == 'release' or how == 'retry' or how == 'snooze'
  unleased[#unleased + 1] = id
  if how == 'release' then
    call('HDEL', key, 'owner', 'lease_until_ns', 'delay_born')
  else
    call('HDEL', key, 'owner', 'lease_until_ns', 'delay_born', 'started_at_ns', 'running_at_ns')
    if started ~= '' then
      put('started_at_ns', started)
    end
    if running ~= '' then
      put('running_at_ns', running)
    end
  end
  if attempt ~= '1' or j[12] then -- an earlier one's, or that of whoever asked for its end
    call('HDEL', data, 'reason', how ~= 'release' and 'error' or 'reason')
  end
  if to >= from then
    call('HSET', data, unpack(ARGV, from, to))
  end
  if how == 'retry' then
    local failures = tonumber(j[11] or 0)
    if failures == 0 then
      put('first_due_ns', j[9])
    end
    put('failures', failures + 1)
  elseif FAILED[how] then
    put('failures', (j[11] or 0) + 1)
  end
  if goes_back and j[12] and how ~= 'release' then
    after, goes_back = 'cancelled', false
  end
  if goes_back then
    local run_at = j[9]
    if delay > 0 or rest ~= '000' then
      run_at = whole(now + delay) .. rest
      put('delay_born', 1)
    elseif due_us(run_at) > now then
      run_at = ns_of(now)
    end
    after, is_back = 'submitted', true
    put('run_at_ns', run_at)
    put('at', enqueue(id, j[6], j[7], tonumber(j[8]), run_at, j[10], now))
    add(waits, j[6], 1)
  else
    put('finished_at_ns', at)
    put('at', 'f')
    local n = #done
    done[n + 1], done[n + 2] = split(at), id
    add(ends, j[5] .. '\31' .. after, 1)
    over[#over + 1] = id
  end
  put('state', after)
  call('HSET', key, unpack(set))
  add(moves, state, -1)
  add(moves, after, 1)
  return after
end

for i = 1, n do
  local id, attempt, owner, how, at, started, running = arg(), arg(), arg(), arg(), arg(), arg(), arg()
  local delay, rest = count(), arg()
  local from, to = list()
  answers[i] = finish(id, attempt, owner, how, at, started, running, delay, rest, from, to)
end
on_all('ZREM', P .. 'leases', unleased)
on_all('ZADD', P .. 'done', done)
settle(now)
if is_back then
  tell_of_jobs(sender)
end
if #over > 0 then
  tell(sender, 'ended', table.concat(over, '\31'))
end
return answers
