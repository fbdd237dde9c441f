-- Read what a decision needs, with the revisions that `commit` checks. ARGV, each a list: jobs; schedules; overlap
-- keys; overlap keys whose open jobs are wanted; unique keys as task and key in turn; occurrences as schedule
-- and fire time in turn.
-- Returns {now, {id, j:, d:} for each job, {id, fields} for each schedule, the schedules each overlap key of the
-- first list holds up, for each of the second {its open jobs, what it holds up}, for each unique key {holder, until,
-- what it holds up}, the jobs of the occurrences}. The open jobs and the holders are among the jobs, what is held
-- up is among the schedules.
local now = now_us()
local jobs, schedules = {}, {}
local function reader(rows, prefix, data)
  local seen = {}
  return function(id)
    if not seen[id] then
      seen[id] = true
      local fields = call('HGETALL', prefix .. id)
      if #fields > 0 then
        rows[#rows + 1] = { id, fields, data and call('HGETALL', data .. id) }
      end
    end
  end
end
local read_job = reader(jobs, P .. 'j:', P .. 'd:')
local read_schedule = reader(schedules, P .. 'sched:')
local function each(step, read)
  local from, to = list()
  local found = {}
  for i = from, to, step do
    found[#found + 1] = read(ARGV[i], ARGV[i + 1])
  end
  return found
end
local function held_up(key)
  local ids = call('SMEMBERS', key)
  table.sort(ids)
  for _, id in ipairs(ids) do
    read_schedule(id)
  end
  return ids
end

each(1, read_job)
each(1, read_schedule)
local keys = each(1, function(key)
  return held_up(P .. 'held:' .. key)
end)
local lines = each(1, function(key)
  local open = call('ZRANGE', P .. 'open:' .. key, 0, -1)
  for _, id in ipairs(open) do
    read_job(id)
  end
  return { open, held_up(P .. 'held:' .. key) }
end)
local uniques = each(2, function(task, key)
  local name = two(task, key)
  local holder, ends = unpack(call('HMGET', P .. 'unique:' .. name, 'id', 'until'))
  if holder then
    read_job(holder)
  end
  return { holder or '', ends or '', held_up(P .. 'barred:' .. name) }
end)
local made = each(2, function(schedule, fire_time)
  return call('HGET', P .. 'made:' .. schedule, fire_time) or ''
end)
return { whole(now), jobs, schedules, keys, lines, uniques, made }
