-- The store's clock, in microseconds: the body of now_us(). Tests put another one in its place.
local time = redis.call('TIME')
return time[1] * 1000000 + time[2]
