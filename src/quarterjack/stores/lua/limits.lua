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

-- A field is a holder's: how many slots, 1, or 0 of who waits for one, and until when.
local key = P .. 'limit:' .. name
local held, waits, taken, waiting, ends = {}, {}, 0, 0, nil
local fields = call('HGETALL', key)
for i = 1, #fields, 2 do
  local holder, n, till = fields[i], string.match(fields[i + 1], '(%d+) (%d+)')
  till = tonumber(till)
  if till <= now then
    call('HDEL', key, holder)
  elseif n == '0' then
    waits[holder], waiting = true, waiting + 1
  else
    held[holder], taken = true, taken + 1
    ends = math.min(ends or till, till)
  end
end
local function put(holder, n, ttl_us)
  call('HSET', key, holder, n .. ' ' .. whole(now + ttl_us))
  expire(key, tonumber(ms_of(ttl_us)))
end

if verb == 'release' then
  local sender = arg()
  for i = cursor + 1, #ARGV do
    if held[ARGV[i]] then
      call('HDEL', key, ARGV[i])
    end
  end
  if waiting > 0 then
    tell(sender, 'limits', name)
  end
  return waiting
end

local ttl_us, answer = count(), {}
if verb == 'renew' then
  get_through()
  for i = cursor + 1, #ARGV do
    if held[ARGV[i]] then
      put(ARGV[i], 1, ttl_us)
    else
      answer[#answer + 1] = ARGV[i]
    end
  end
  return answer
end

local maximum, waiter, waiter_us = count(), arg(), count()
local asked = #ARGV - cursor
if waits[waiter] then
  waiting = waiting - 1
  call('HDEL', key, waiter)
end
for i = cursor + 1, #ARGV do
  local holder = ARGV[i]
  if taken - (held[holder] and 1 or 0) < maximum then
    taken = taken + (held[holder] and 0 or 1)
    held[holder] = true
    put(holder, 1, ttl_us)
    answer[#answer + 1] = holder
  end
end
if #answer == asked then
  return {answer, waiting, '0'}
end
if waiter ~= '' then
  put(waiter, 0, waiter_us)
end
return {answer, waiting, whole(math.max(0, (ends or now) - now))}
