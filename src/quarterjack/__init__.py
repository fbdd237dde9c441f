"""quarterjack: things that run later, again, or not all at once."""
