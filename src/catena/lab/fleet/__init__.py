"""A simulated fleet: many nodes with software keys, one real trust service."""
