"""The identity of a root file system, from its files alone."""
