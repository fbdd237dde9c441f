-- Delete finished jobs. ARGV: the age in microseconds, how many at most, how many to keep ("" for all).
-- Returns how many.
local now = now_us()
local age, most, keep = count(), count(), tonumber(arg())
local done = P .. 'done'
local old = call('ZRANGEBYSCORE', done, '-inf', '(' .. whole(now - age), 'LIMIT', 0, most)
local surplus = keep and math.min(most, call('ZCARD', done) - keep) or 0
if surplus > #old then
  old = call('ZRANGE', done, 0, surplus - 1)
end
for _, id in ipairs(old) do
  local key, data = P .. 'j:' .. id, P .. 'd:' .. id
  local state = call('HGET', key, 'state')
  call('DEL', key, data)
  call('ZREM', P .. 'all', id)
  call('ZREM', done, id)
  add(moves, state, -1)
end
settle(now)
return #old
