-- What all scripts share. KEYS[1] is what every key begins with, the hash tag "{qj}:", so that all are in one slot.
--
-- Numbers of Lua are doubles, exact up to 2^53: enough for microseconds until the year 2255, not for
-- nanoseconds. So instants in nanoseconds are text, and never computed with. Scores are their microseconds;
-- the rest, three digits, stands first in a member, and members of one score are in the order of their bytes.
--
--   j:<id>         a job: the columns that scripts decide by, and what only they need: "rev", a number that grows with
--                  each change; "seq", its own; "at", where it stands (r, d, p: ready, delayed, parked; f: done; "":
--                  held); "plain", if nothing hangs on it but its row; "turns" and "late", see turns.lua; "has_data"
--   d:<id>         its other columns: arguments, result, error ...
--   all            every job by its number, which is the order of insertion
--   ready:<queue><lane>, lanes:<queue>   who may be claimed, by order; which of these there are
--   delayed        who waits for its time
--   leases         who is held, or outlived its outcome, by the end of its lease
--   done           who has ended, by when
--   open:<key>     the open jobs of an overlap key, by number; of backfills who is held
--   turn:<key>, parked:<key>             of those that take turns: who has it, and who waits for it
--   unique:<task><key>                   who has a unique key, and until when
--   sched:<id>, scheds, due              schedules, their ids, and when each is to be looked at
--   held:<key>, barred:<task><key>       schedules that wait for room: under an overlap key, under a unique key
--   made:<schedule>                      the jobs of backfills by fire time
--   states, waiting                      how many jobs there are: by state, waiting by queue
--   ended:<minute>                       how many ended then, by task and state; for a day
--   limit:<name>, rate:<name>            slots by holder and who waits for one, the instant from which a bucket is full; until these run out
--   worker:<id>, workers, audit          the registry, and who did what
--   layout, seq, told                    the version of all this; the last number; that workers were told of new jobs
local P = KEYS[1]
local call = redis.call
local AGING_US = 10000000

local cursor = 0
local function arg()
  cursor = cursor + 1
  return ARGV[cursor]
end
local function count()
  return tonumber(arg())
end
local function list()
  local first = cursor + 2
  cursor = first - 1 + tonumber(ARGV[cursor + 1])
  return first, cursor
end

local function whole(number)
  return string.format('%.0f', number)
end
local function ns_of(us)
  return string.format('%.0f000', us)
end
-- The microseconds of an instant, and the rest of it as three digits.
local function split(ns)
  return tonumber(string.sub(ns, 1, -4)) or 0, string.sub('00' .. ns, -3)
end
-- The first microsecond at which an instant has come.
local function due_us(ns)
  local us, rest = split(ns)
  if rest ~= '000' then
    us = us + 1
  end
  return us
end
-- A name of two parts, of which the first may hold anything.
local function two(first, second)
  return #first .. ':' .. first .. second
end

-- A command on one key for many values at once: each costs as much as several values. The stack holds some thousands.
local AT_ONCE = 1000
local function on_all(command, key, values)
  for i = 1, #values, AT_ONCE do
    call(command, key, unpack(values, i, math.min(i + AT_ONCE - 1, #values)))
  end
end

-- A server whose memory is full refuses a script's writes, but not of one that has written before, and deleting needs
-- no memory: so begins what must get through, since a part of it may be what makes room.
local function get_through()
  call('DEL', P .. 'nothing')
end

-- Counts, written at the end of the script, each once.
local moves, waits, ends = {}, {}, {}
local function add(counts, name, n)
  counts[name] = (counts[name] or 0) + n
end
local function write(key, counts)
  for name, n in pairs(counts) do
    if n ~= 0 and call('HINCRBY', key, name, n) == 0 then
      call('HDEL', key, name)
    end
  end
end
local OUTCOMES_MS = 25 * 3600 * 1000
local function settle(now)
  write(P .. 'states', moves)
  write(P .. 'waiting', waits)
  if next(ends) then
    local key = P .. 'ended:' .. whole(math.floor(now / 60000000))
    write(key, ends)
    call('PEXPIRE', key, OUTCOMES_MS)
  end
end

-- Hints. Who listens knows its own by the sender's name; new jobs are told of once until somebody claims.
local function tell(sender, hint, ids)
  call('PUBLISH', P .. 'hints', sender .. ' ' .. hint .. ' ' .. (ids or ''))
end
local function tell_of_jobs(sender)
  if call('SET', P .. 'told', 1, 'NX', 'PX', 1000) then
    tell(sender, 'jobs')
  end
end
