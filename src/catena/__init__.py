"""catena: a chain of trust from firmware keys to every container and cluster.

ARCHITECTURE.md draws the floors of this package; imports only ever go down.
"""

__version__ = "0.1.0"
