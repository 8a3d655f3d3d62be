"""Enterprise keys: the hierarchy, signers, and what is put into firmware."""
