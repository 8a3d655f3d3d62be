"""Image signatures of every kind, behind one verifier with one result."""
