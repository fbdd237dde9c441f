-- Read schedules. ARGV: "due", a horizon in microseconds and its rest, and how many at most, earliest first; or
-- "list", an id, "", and how many of those behind it, in the order of their ids. Returns {id, fields} for each.
local verb, from, rest, most = arg(), arg(), arg(), count()
if verb == 'list' then
  local rows = {}
  for _, id in ipairs(call('ZRANGEBYLEX', P .. 'scheds', from == '' and '-' or '(' .. from, '+', 'LIMIT', 0, most)) do
    rows[#rows + 1] = { id, call('HGETALL', P .. 'sched:' .. id) }
  end
  return rows
end

local until_us = now_us() + tonumber(from)
local rows = {}
for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'due', '-inf', whole(until_us + 1), 'LIMIT', 0, most)) do
  local us, wake_rest = split(call('HGET', P .. 'sched:' .. id, 'wake_ns'))
  if us < until_us or (us == until_us and wake_rest <= rest) then
    rows[#rows + 1] = { id, call('HGETALL', P .. 'sched:' .. id) }
  end
end
return rows
