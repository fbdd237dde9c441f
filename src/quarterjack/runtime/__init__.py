"""The asynchronous shell: it reads the clock, asks the pure parts, and writes what they say to the store."""
