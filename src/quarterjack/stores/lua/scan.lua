-- Look through jobs, newest first, a slice at a time. ARGV: the number to begin below ("+inf" for the newest), how
-- many to look at, how many to return, "rows" or "times", then the filter: states, task, queue, schedule,
-- since, text, "1" for open ones; "" means any.
-- Returns {the number to go on below or "", {number, id, j:, d:} for each, or {number, id, state, began, ended}}.
local below, most_seen, most, what = arg(), count(), count(), arg()
local from, to = list()
local states, is_any = {}, to < from
for i = from, to do
  states[ARGV[i]] = true
end
local task, queue, schedule, since, text, is_open = arg(), arg(), arg(), arg(), arg(), arg() == '1'
local OPEN = { submitted = true, scheduled = true, started = true, running = true }

-- Instants are text of one length, but for the first years of the epoch.
local function before(one, other)
  return #one < #other or (#one == #other and one < other)
end

local function matches(id, j)
  return (is_any or states[j[1]])
    and (not is_open or OPEN[j[1]] or j[2])
    and (task == '' or task == j[3])
    and (queue == '' or queue == j[4])
    and (since == '' or not before(j[5] or '0', since))
    and (schedule == '' or call('HGET', P .. 'd:' .. id, 'origin_schedule') == schedule)
    and (
      text == ''
      or string.find(id, text, 1, true)
      or string.find(j[3], text, 1, true)
      or string.find(call('HGET', P .. 'd:' .. id, 'reason') or '', text, 1, true)
    )
end

local found = {}
local seen = call('ZREVRANGEBYSCORE', P .. 'all', below, '-inf', 'WITHSCORES', 'LIMIT', 0, most_seen)
for i = 1, #seen, 2 do
  local id, number = seen[i], seen[i + 1]
  local key = P .. 'j:' .. id
  local j = call(
    'HMGET', key, 'state', 'zombie', 'task', 'queue', 'submitted_at_ns', 'running_at_ns', 'finished_at_ns'
  )
  if matches(id, j) then
    if what == 'rows' then
      found[#found + 1] = { number, id, call('HGETALL', key), call('HGETALL', P .. 'd:' .. id) }
    else
      found[#found + 1] = { number, id, j[1], j[6] or '', j[7] or '' }
    end
    if #found == most then
      return { '(' .. number, found }
    end
  end
end
return { #seen == 2 * most_seen and '(' .. seen[#seen] or '', found }
