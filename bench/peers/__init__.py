"""Other people's servers under our callers, each in an environment of its own below var/peers."""
