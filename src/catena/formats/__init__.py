"""Wire formats, one per module: bytes in, frozen values out, and back. No I/O, no clock."""
