"""The transparency log: append-only, Merkle-hashed, signed, verifiable offline (C2SP tlog)."""
