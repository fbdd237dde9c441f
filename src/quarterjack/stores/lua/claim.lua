-- uses: waiting, turns
-- Lease jobs whose time has come. ARGV: owner, the lease in microseconds or "", how many delayed jobs to look at for the
-- next that is wanted, how many wants; for each its slots, queues and lanes.
-- Returns {now, ids whose lease ran out} if there are such: they are taken back first, then it is asked again.
-- Else {now, {}, the next instant at which one falls due or "", {id, j:, d:} for each, 1 if one of them had a key that
-- holds up a schedule}.
local now = now_us()
local owner, lease_us, look_ahead = arg(), tonumber(arg()), count()
local MOST_RESCUED, MOST_PROMOTED, MOST_PARKED = 100, 1000, 1000

-- What a server that threw keys away, or got a part of them back, left here without its job, or with another end of
-- the lease than the job's, nobody can take back.
local over, strays = {}, {}
for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, MOST_RESCUED)) do
  local until_ns = call('HGET', P .. 'j:' .. id, 'lease_until_ns')
  if not until_ns then
    strays[#strays + 1] = id
  elseif due_us(until_ns) > now then
    call('ZADD', P .. 'leases', due_us(until_ns), id)
  else
    over[#over + 1] = id
  end
end
on_all('ZREM', P .. 'leases', strays)
if #over > 0 then
  return { whole(now), over }
end

local delayed = P .. 'delayed'
local due = call('ZRANGEBYSCORE', delayed, '-inf', now, 'WITHSCORES', 'LIMIT', 0, MOST_PROMOTED)
if #due > 0 then
  local members = {}
  for i = 1, #due, 2 do
    local member, us = due[i], tonumber(due[i + 1])
    local key = P .. 'j:' .. string.sub(member, ID_AT)
    local j = call('HMGET', key, 'queue', 'lane', 'priority')
    make_ready(j[1], j[2], tonumber(j[3]), string.sub(member, 1, 3) == '000' and us or us - 1, member)
    call('HSET', key, 'at', 'r')
    members[#members + 1] = member
  end
  call('ZREM', delayed, unpack(members))
end

local until_ns = lease_us and ns_of(now + lease_us)
local now_ns = ns_of(now)
local rows = {}

-- Where one waits less, a schedule that is held up may have room.
local has_held_up = 0
local function look_for_held_up(id, overlap_key)
  if overlap_key and call('EXISTS', P .. 'held:' .. overlap_key) == 1 then
    has_held_up = 1
  end
  local unique = call('HGET', P .. 'd:' .. id, 'unique_key')
  if unique and call('EXISTS', P .. 'barred:' .. two(call('HGET', P .. 'j:' .. id, 'task'), unique)) == 1 then
    has_held_up = 1
  end
end

-- Lease one job, unless its turn has not come: then it is parked. What it answers with are the fields as they were,
-- and behind them those that have changed: the later ones count.
local leases, parked = {}, 0
local function lease(member, order)
  local id = string.sub(member, ID_AT)
  local key, data = P .. 'j:' .. id, P .. 'd:' .. id
  local fields = call('HGETALL', key)
  local j = {}
  for i = 1, #fields, 2 do
    j[fields[i]] = fields[i + 1]
  end
  if j.turns then
    if not take_turn(j.overlap_key, id, j.late, order, member, now) then
      call('HSET', key, 'at', 'p')
      parked = parked + 1
      return false
    elseif j.late then
      call('ZADD', P .. 'open:' .. j.overlap_key, tonumber(j.seq), id)
    end
  end
  local changed = {
    'state', 'scheduled', 'owner', owner, 'attempt', whole((j.attempt or 0) + 1), 'rev', whole(j.rev + 1),
    'scheduled_at_ns', now_ns, 'at', '',
  }
  if lease_us then
    changed[13], changed[14] = 'lease_until_ns', until_ns
    local n = #leases
    leases[n + 1], leases[n + 2] = now + lease_us, id
  end
  call('HSET', key, unpack(changed))
  if j.attempt then
    call('HDEL', key, 'started_at_ns', 'running_at_ns')
    call('HDEL', data, 'reason')
    fields = call('HGETALL', key)
  else
    for i = 1, #changed do
      fields[#fields + 1] = changed[i]
    end
  end
  add(waits, j.queue, -1)
  if not j.plain then
    look_for_held_up(id, j.overlap_key)
  end
  rows[#rows + 1] = { id, fields, (j.attempt or j.has_data) and call('HGETALL', data) or {} }
  return true
end

-- The waiting jobs of one lane, read a few at a time.
local function refill(lane)
  lane.at, lane.from = 1, lane.from + lane.step
  lane.jobs = call('ZRANGE', lane.key, lane.from - lane.step, lane.from - 1, 'WITHSCORES')
  lane.score = tonumber(lane.jobs[2])
  return lane.score
end
local function step(lane)
  lane.at = lane.at + 2
  lane.score = tonumber(lane.jobs[lane.at + 1])
  return lane.score or refill(lane)
end

local function most_urgent(lanes)
  local best
  for i = 1, #lanes do
    local lane = lanes[i]
    if
      lane.score
      and (
        not best
        or lane.score < best.score
        or (lane.score == best.score and lane.jobs[lane.at] < best.jobs[best.at])
      )
    then
      best = lane
    end
  end
  return best
end

-- Take up to `slots` jobs of a queue's wanted lanes, most urgent first; returns how many.
local function take(queue, wanted, slots)
  local lanes, taken = {}, 0
  for _, name in ipairs(call('SMEMBERS', P .. 'lanes:' .. queue)) do
    if wanted[name] then
      lanes[#lanes + 1] = { name = name, key = ready_key(queue, name), from = 0, gone = {} }
    end
  end
  for i = 1, #lanes do
    lanes[i].step = math.min(500, #lanes == 1 and slots or math.ceil(slots / #lanes) + 1)
    refill(lanes[i])
  end
  while taken < slots and parked < MOST_PARKED do
    local lane = most_urgent(lanes)
    if not lane then
      break
    end
    local member = lane.jobs[lane.at]
    lane.gone[#lane.gone + 1] = member
    if lease(member, lane.score) then
      taken = taken + 1
    end
    if taken < slots then
      step(lane)
    end
  end
  for i = 1, #lanes do
    local lane = lanes[i]
    on_all('ZREM', lane.key, lane.gone)
    if #lane.gone > 0 and call('EXISTS', lane.key) == 0 then
      call('SREM', P .. 'lanes:' .. queue, lane.name)
    end
  end
  return taken
end

local wants = {}
for n = 1, count() do
  local slots = count()
  local first, last = list()
  local lanes_from, lanes_to = list()
  local wanted = {}
  for i = lanes_from, lanes_to do
    wanted[ARGV[i]] = true
  end
  wants[n] = { lanes = wanted, queues = {} }
  for i = first, last do
    wants[n].queues[ARGV[i]] = true
    if slots > 0 then
      slots = slots - take(ARGV[i], wanted, slots)
    end
  end
end
on_all('ZADD', P .. 'leases', leases)
add(moves, 'submitted', -#rows)
add(moves, 'scheduled', #rows)
settle(now)
call('DEL', P .. 'told')

-- When the next one falls due that is wanted; or the last one that is looked at.
local function is_wanted(member)
  local queue, lane = unpack(call('HMGET', P .. 'j:' .. string.sub(member, ID_AT), 'queue', 'lane'))
  for n = 1, #wants do
    if queue and wants[n].queues[queue] and wants[n].lanes[lane] then
      return true
    end
  end
  return false
end
local function next_due()
  local following = call('ZRANGE', delayed, 0, look_ahead - 1, 'WITHSCORES')
  for i = 1, #following, 2 do
    if i + 1 == 2 * look_ahead or is_wanted(following[i]) then
      local rest = string.sub(following[i], 1, 3)
      return whole(tonumber(following[i + 1]) - (rest == '000' and 0 or 1)) .. rest
    end
  end
  return ''
end
local next_ns = parked == MOST_PARKED and now_ns or next_due() -- there may be more to park
return { whole(now), {}, next_ns, rows, has_held_up }
