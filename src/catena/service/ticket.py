"""Tickets: what the server remembers of an enrolment challenge, kept by the node itself.

A ticket is ``nonce (12) ‖ AES-256-GCM(key, memory)`` under a key that all replicas share, so
any replica can finish what another began and nothing unproven enters the database. It holds a
hash of the activation secret, never the secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from catena.appraise.tpmidentity import UNKNOWN_TPM, TpmIdentity
from catena.errors import ExitCode, Refusal
from catena.ids import NodeId

LIFETIME = timedelta(minutes=2)
_NONCE_SIZE = 12
_CONTEXT = b"catena/ticket/v1"


class ForgedTicket(Refusal):
    """A ticket that no replica of this server made."""

    code = "forged-ticket"
    remedy = "Enrol from the start; return the ticket of the challenge unchanged."


class ExpiredTicket(Refusal):
    """A genuine ticket whose time is over."""

    code = "expired-ticket"
    exit_code = ExitCode.STALE
    remedy = "Enrol again. If this repeats, the link or the TPM is too slow."


class WrongActivationSecret(Refusal):
    """A secret that the challenged TPM did not recover."""

    code = "wrong-activation-secret"
    remedy = "The attestation key is not shown to live in the TPM that was named."


class Memory(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a ticket holds; ``expires`` is in seconds since 1970 UTC.

    ``ek_issuer`` and ``ek_serial`` are of an EK certificate that was verified; None without one.
    """

    node_id: NodeId
    ek_public: bytes
    ak_public: bytes
    endorsed_by: str
    name_hint: str | None
    secret_sha256: bytes
    expires: float
    tpm: TpmIdentity = UNKNOWN_TPM
    ek_issuer: str | None = None
    ek_serial: str | None = None
    ek_certificates: tuple[bytes, ...] | None = None
    """What the endorsement rests on; None in a ticket of a server from before it was kept."""


@dataclass(frozen=True, slots=True)
class TicketOffice:
    """Issues and reads tickets under one key."""

    key: bytes = field(repr=False)

    def issue(self, memory: Memory, random: Callable[[int], bytes]) -> bytes:
        """Seal the memory."""
        nonce = random(_NONCE_SIZE)
        return nonce + AESGCM(self.key).encrypt(nonce, msgspec.msgpack.encode(memory), _CONTEXT)

    def redeem(self, ticket: bytes, secret: bytes, now: datetime) -> Memory:
        """The memory, once the secret proves that the challenge was met.

        Raises ``ForgedTicket``, ``ExpiredTicket`` or ``WrongActivationSecret``.
        """
        try:
            sealed = AESGCM(self.key).decrypt(ticket[:_NONCE_SIZE], ticket[_NONCE_SIZE:], _CONTEXT)
        except (InvalidTag, ValueError) as error:  # ValueError: too short to hold a nonce
            raise ForgedTicket("the ticket was not made by this server") from error
        memory = msgspec.msgpack.decode(sealed, type=Memory)
        if now.timestamp() > memory.expires:
            raise ExpiredTicket("the enrolment took too long", expected=f"at most {LIFETIME}")
        if not hmac.compare_digest(hashlib.sha256(secret).digest(), memory.secret_sha256):
            raise WrongActivationSecret("the activation secret is wrong")
        return memory


def expiry(now: datetime) -> float:
    """When a ticket issued now expires."""
    return (now.astimezone(UTC) + LIFETIME).timestamp()
