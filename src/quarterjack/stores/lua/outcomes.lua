-- Return how many jobs ended since an instant. ARGV: that instant in microseconds.
-- Returns {minute, {task and state, count ...}} for each minute that has any.
local MOST_MINUTES = 24 * 60
local last = math.floor(now_us() / 60000000)
local first = math.max(math.floor(count() / 60000000), last - MOST_MINUTES)
local found = {}
for minute = first, last do
  local counts = call('HGETALL', P .. 'ended:' .. whole(minute))
  if #counts > 0 then
    found[#found + 1] = { whole(minute), counts }
  end
end
return found
