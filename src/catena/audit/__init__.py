"""The transparency log: every decision, provable to someone who trusts nobody."""
