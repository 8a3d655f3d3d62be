"""Nonces that any replica can check without having made them (TRUST, attestation step 1).

A nonce is 56 bytes, always::

    0   u64 big-endian   when it was made, milliseconds since the Unix epoch
    8   16 bytes         random part
    24  32 bytes         HMAC-SHA256(key, "catena/nonce/v1" ‖ node id (32) ‖ bytes 0–23)

The fixed length keeps the concatenation in ``evidence.qualifying_data`` unambiguous. A nonce
is good for any number of uses by its node within its lifetime: what a second use could gain
is bounded by the TPM's clock, which must not go back (step e).
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

from catena.appraise.refusal import UnauthenticatedRefusal
from catena.errors import ExitCode, UsageError
from catena.ids import NodeId

NONCE_SIZE = 56
RANDOM_SIZE = 16
LIFETIME = timedelta(seconds=60)
SKEW = timedelta(seconds=5)
"""How far ahead the clock of the replica that made a nonce may be."""

_CONTEXT = b"catena/nonce/v1"
_MIN_KEY = 32
_STAMP_SIZE = 8
_SIGNED_SIZE = _STAMP_SIZE + RANDOM_SIZE
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class ForgedNonce(UnauthenticatedRefusal):
    """A nonce that no replica of this server made for this node."""

    code = "nonce-forged"
    remedy = "The node must ask this server for a nonce and use it under its own identity."
    step = "c"


class StaleNonce(UnauthenticatedRefusal):
    """A genuine nonce whose lifetime is over: the evidence may be a recording."""

    code = "nonce-stale"
    exit_code = ExitCode.STALE
    remedy = "Ask for a new nonce. If this repeats, the link or the TPM is too slow."
    step = "c"


class PrematureNonce(UnauthenticatedRefusal):
    """A genuine nonce from the future: the clocks of the replicas disagree."""

    code = "nonce-premature"
    exit_code = ExitCode.STALE
    remedy = "Synchronise the clocks of the server's replicas."
    step = "c"


class SpentNonce(UnauthenticatedRefusal):
    """A nonce from before the node's last attestation: recorded evidence, or late evidence."""

    code = "nonce-spent"
    exit_code = ExitCode.STALE
    remedy = "Ask for a new nonce: evidence is worth one attestation."
    step = "c"


def make_nonce(key: bytes, node_id: NodeId, now: datetime, random16: bytes) -> bytes:
    """A nonce for ``node_id``; ``random16`` is 16 fresh random bytes, ``now`` is aware."""
    if len(key) < _MIN_KEY or len(random16) != RANDOM_SIZE:
        raise UsageError("a nonce needs a key of 32 bytes or more and 16 random bytes")
    stamp = (now - _EPOCH) // _MILLISECOND
    signed = stamp.to_bytes(_STAMP_SIZE, "big") + random16
    return signed + _mac(key, node_id, signed)


def check_nonce(
    key: bytes,
    node_id: NodeId,
    nonce: bytes,
    now: datetime,
    lifetime: timedelta = LIFETIME,
    *,
    concluded: datetime | None = None,
) -> None:
    """Step 5c, freshness; ``concluded`` is when the node's last attestation was.

    A nonce made before that is spent, so no table of used nonces is needed; two attestations
    within one millisecond are told apart by the quote's clock (``quote.check_clock``). Raises
    ``ForgedNonce``, ``StaleNonce``, ``PrematureNonce`` or ``SpentNonce``.
    """
    if len(key) < _MIN_KEY:
        raise UsageError("nonces are checked with a key of 32 bytes or more")
    signed, mac = nonce[:_SIGNED_SIZE], nonce[_SIGNED_SIZE:]
    if len(nonce) != NONCE_SIZE or not hmac.compare_digest(mac, _mac(key, node_id, signed)):
        raise ForgedNonce("the nonce was not made by this server for this node")
    check_age(nonce, now, lifetime, concluded=concluded)


def check_age(
    nonce: bytes, now: datetime, lifetime: timedelta = LIFETIME, *, concluded: datetime | None
) -> None:
    """The part of ``check_nonce`` that needs no key; for a nonce that was found genuine.

    Raises ``StaleNonce``, ``PrematureNonce`` or ``SpentNonce``.
    """
    made = int.from_bytes(nonce[:_STAMP_SIZE], "big")
    age = (now - _EPOCH) // _MILLISECOND - made
    if age > lifetime // _MILLISECOND:
        raise StaleNonce(
            "the nonce has expired", expected=f"at most {lifetime // _MILLISECOND} ms", got=f"{age}"
        )
    if -age > SKEW // _MILLISECOND:
        raise PrematureNonce("the nonce was made in the future", got=f"{-age} ms ahead")
    if concluded is not None and made < (concluded - _EPOCH) // _MILLISECOND:
        raise SpentNonce("the nonce was made before the node's last attestation")


def _mac(key: bytes, node_id: NodeId, signed: bytes) -> bytes:
    return hmac.digest(key, _CONTEXT + bytes.fromhex(node_id) + signed, hashlib.sha256)
