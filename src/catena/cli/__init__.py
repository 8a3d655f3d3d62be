"""The catena command: one module per noun."""
