-- Slots and tokens shared by name. ARGV: the verb, the limit's name, and what the verb takes.
-- Slots are rows with a holder and an end, never a counter. Tokens follow the generic cell rate algorithm: one
-- instant per name, from which on the bucket is full. Both keys are gone when they would say nothing any more.
local now = now_us()
local verb, name = arg(), arg()
local SLACK_US = 1 -- the sums below round to a quarter of a microsecond

local function expire(key, ms)
  if call('PTTL', key) < ms then
    call('PEXPIRE', key, ms)
  end
end
local function ms_of(us)
  return whole(math.ceil(us / 1000) + 1)
end

if verb == 'take' then
  local n, rate, burst = count(), count(), count()
  local key = P .. 'rate:' .. name
  local per_token = 1000000 / rate
  local arrival = math.max(tonumber(call('GET', key) or now), now) + n * per_token
  local wait = arrival - now - burst * per_token
  if wait > SLACK_US then
    return string.format('%.17g', wait / 1000000)
  end
  call('SET', key, string.format('%.17g', arrival), 'PX', ms_of(arrival - now))
  return '0'
end

local key, holder = P .. 'limit:' .. name, arg()
if verb == 'release' then
  return call('HDEL', key, holder)
end
local slots, taken, mine = call('HGETALL', key), 0, nil
for i = 1, #slots, 2 do
  local n, ends = string.match(slots[i + 1], '(%d+) (%d+)')
  if tonumber(ends) <= now then
    call('HDEL', key, slots[i])
  elseif slots[i] == holder then
    mine = n
  else
    taken = taken + n
  end
end
local n, maximum, ttl_us = arg(), count(), count()
if verb == 'renew' then
  get_through()
  n = mine
elseif taken + n > maximum then
  return 0
end
if not n then
  return 0
end
call('HSET', key, holder, n .. ' ' .. whole(now + ttl_us))
expire(key, tonumber(ms_of(ttl_us)))
return 1
