"""Signed webhooks: Standard Webhooks, https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.

=====================  ================================================================
``webhook-id``          names the message; the same each time it is sent
``webhook-timestamp``   seconds since 1970 when it was sent this time
``webhook-signature``   ``v1,BASE64``, several with spaces between them
=====================  ================================================================

What is signed is ``ID.TIMESTAMP.BODY`` with HMAC-SHA256. A secret has 24 to 64 bytes and is written as
``whsec_BASE64``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from catena.errors import FormatError

PREFIX = "whsec_"
MIN_SECRET, MAX_SECRET = 24, 64
"""Bytes."""


class BadWebhookSecret(FormatError):
    """A secret that is not written as Standard Webhooks has it. It is never shown."""

    code = "bad-webhook-secret"
    remedy = "Write `whsec_` and 24 to 64 random bytes in base64, a secret on each line."


def parse_secret(text: str) -> bytes:
    """The bytes of a secret. Raises ``BadWebhookSecret``."""
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        secret = b""
    if not text.startswith(PREFIX) or not MIN_SECRET <= len(secret) <= MAX_SECRET:
        expected = f"{PREFIX}BASE64 of {MIN_SECRET} to {MAX_SECRET} bytes"
        raise BadWebhookSecret("not a webhook secret", expected=expected) from None
    return secret


def headers(
    secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes
) -> dict[str, str]:
    """The headers of a message, with a signature for each secret. ``message_id`` has no full stop."""
    if "." in message_id:
        raise ValueError("a message's id has a full stop")
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = (
        base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets
    )
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
