-- Note which layout of keys a store has, if it is new; return the one it has. ARGV: the layout this version knows.
local key = P .. 'layout'
call('SET', key, arg(), 'NX')
return call('GET', key)
