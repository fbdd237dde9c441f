"""Pure decisions: no clock, no store, no logging; each can be replayed from its arguments."""
