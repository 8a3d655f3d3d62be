"""Stands for a program that needs a secret: proves to the lab that it could read it.

Prints HMAC-SHA256(secret, label); the lab, which knows the secret, computes the same.
"""

import hashlib
import hmac
from pathlib import Path

name = Path("/etc/catena/lab-workload").read_text().strip()
secret = (Path("/run/catena/secrets") / name).read_bytes()
proof = hmac.new(secret, b"catena lab workload", hashlib.sha256).hexdigest()
print(f"lab-workload: secret {name} opened, proof {proof}", flush=True)
