-- Who did what, newest first. ARGV: "put", how many rows to keep, the rows; or "list", how many.
local key = P .. 'audit'
if arg() == 'put' then
  local most = count()
  for i = 3, #ARGV do
    call('LPUSH', key, ARGV[i])
  end
  return call('LTRIM', key, 0, most - 1)
end
local most = count()
return most > 0 and call('LRANGE', key, 0, most - 1) or {}
