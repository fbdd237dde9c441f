-- The registry of workers. ARGV: the verb, and what it takes. A worker that said nothing for a day is forgotten.
local now = now_us()
local verb = arg()
local FORGET_US, FORGET_MS = 86400 * 1000000, 86400 * 1000
local all = P .. 'workers'

for _, id in ipairs(call('ZRANGEBYSCORE', all, '-inf', now - FORGET_US, 'LIMIT', 0, 100)) do
  call('ZREM', all, id)
  call('DEL', P .. 'worker:' .. id)
end

if verb == 'list' then
  local rows = {}
  for _, id in ipairs(call('ZRANGE', all, 0, -1)) do
    rows[#rows + 1] = call('HGET', P .. 'worker:' .. id, 'info') or nil
  end
  return rows
end

local id = arg()
local key = P .. 'worker:' .. id
if verb == 'put' then -- first what needs no memory, so that a full one does not make workers look dead
  local command = call('HGET', key, 'command')
  call('HDEL', key, 'command')
  call('ZADD', all, now, id)
  call('HSET', key, 'info', arg())
  if command == arg() then -- the worker has heard of it
    command = false
  elseif command then
    call('HSET', key, 'command', command)
  end
  call('PEXPIRE', key, FORGET_MS)
  return command
elseif verb == 'remove' then
  call('ZREM', all, id)
  return call('DEL', key)
elseif verb == 'command' and call('EXISTS', key) == 1 then
  call('HSET', key, 'command', arg())
  return 1
end
return 0
