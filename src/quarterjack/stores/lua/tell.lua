-- Send a hint. ARGV: the sender, the hint, the ids.
tell(arg(), arg(), arg())
return 1
