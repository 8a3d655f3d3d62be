"""Bearer tokens: 256 random bits, kept only as a hash.

A token has full entropy, so one SHA-256 is enough; there is nothing to guess. It looks like
``catena_`` followed by 43 characters, so that secret scanners can find a leaked one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

PREFIX = "catena_"
TOKEN_BYTES = 32


def new_token(random: Callable[[int], bytes]) -> str:
    """A fresh token; show it once."""
    text = base64.urlsafe_b64encode(random(TOKEN_BYTES)).decode().rstrip("=")
    return f"{PREFIX}{text}"


def token_hash(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
