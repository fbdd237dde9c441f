-- Return the store's clock, in microseconds.
return whole(now_us())
