"""Real virtual machines with UEFI firmware and software TPMs, and the attacks on them."""
