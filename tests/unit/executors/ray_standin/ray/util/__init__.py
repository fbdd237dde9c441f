"""As Ray has it."""
