"""The node daemon: proves its machine, receives identity and secrets. Never judges itself."""
