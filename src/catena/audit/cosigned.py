"""Cosignatures under a checkpoint: made by a witness, counted by whoever reads a log.

A log's own signature says that its key signed this tree; it does not say that everybody is shown
the same one. A quorum of witnesses, each of which signs only what grew from what it signed
before, does: two trees of one log that both have it would need a witness that lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from catena.audit import checkpoint as checkpoints
from catena.errors import FormatError, LogInconsistent, UsageError
from catena.formats import cosignature, note, verifierkey
from catena.formats.cosignature import Cosignature
from catena.formats.note import COSIGNATURE, Checkpoint, Note, NoteSignature
from catena.formats.verifierkey import VerifierKey
from catena.keys.signer import PublicKey, Signer

MAX_WITNESSES = 32
MAX_SKEW = 300
"""Seconds by which a witness's clock may be ahead of the reader's."""


class BadWitness(UsageError):
    """A witness that cannot be configured so."""

    code = "bad-witness"
    remedy = "Give the line `NAME+KEYID+KEY` that `catena audit witness init` printed."


class BadQuorum(UsageError):
    """A quorum that the witnesses cannot reach, or that asks for none of them."""

    code = "bad-quorum"
    remedy = "Ask for 1 to as many cosignatures as there are witnesses."


class CosignatureForged(LogInconsistent):
    """A cosignature that names a witness and does not hold under its key."""

    code = "cosignature-forged"
    remedy = "Check that this is the witness's key; if it is, the checkpoint was tampered with."


class CosignatureFromFuture(LogInconsistent):
    """A cosignature of a time that has not come yet."""

    code = "cosignature-from-future"
    remedy = "Compare this machine's clock and the witness's with a third one."


class QuorumMissed(LogInconsistent):
    """Fewer witnesses cosigned this checkpoint than must have."""

    code = "quorum-missed"
    remedy = "Obtain a cosigned checkpoint from the server; if it has none, ask why its witnesses refuse."


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """Who may cosign, and how many of them must: made by ``policy``."""

    witnesses: tuple[VerifierKey, ...]
    quorum: int


@dataclass(frozen=True, slots=True)
class WitnessAddress:
    """Where a witness is asked, and the key its cosignatures must hold under."""

    url: str
    key: VerifierKey


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness whose cosignature holds; ``time`` in seconds since 1970, of its own clock."""

    name: str
    time: int


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A verified checkpoint and the witnesses that stand behind it, in the policy's order."""

    checkpoint: Checkpoint
    cosigners: tuple[Cosigner, ...]


def policy(witnesses: Iterable[str], quorum: int) -> WitnessPolicy:
    """A policy from verifier keys as text. Raises ``BadWitness`` and ``BadQuorum``.

    No key counts twice under two names: a cosignature does not sign its witness's name.
    """
    keys: list[VerifierKey] = []
    for text in witnesses:
        key = parse_witness(text)
        if any(key.public_key == other.public_key for other in keys):
            raise BadWitness("a witness's key is given twice", got=ascii(key.name[:80]))
        keys.append(key)
        if len(keys) > MAX_WITNESSES:
            raise BadWitness("too many witnesses", expected=f"at most {MAX_WITNESSES}")
    if not 1 <= quorum <= len(keys):
        raise BadQuorum(
            "no such quorum", expected=f"1 to {len(keys)} of {len(keys)}", got=f"{quorum}"
        )
    return WitnessPolicy(tuple(keys), quorum)


def parse_witness(text: str) -> VerifierKey:
    """A witness's verifier key. Raises ``BadWitness``."""
    try:
        key = verifierkey.parse(text)
    except FormatError as error:
        raise BadWitness(f"not a witness's key: {error}") from error
    if key.kind != COSIGNATURE:
        raise BadWitness(
            "this key signs notes, it does not cosign",
            expected=f"kind 0x{COSIGNATURE:02x}",
            got=f"0x{key.kind:02x}",
        )
    return key


def cosigner_key(name: str, public: PublicKey) -> VerifierKey:
    """The verifier key of a witness. Raises ``UnusableLogKey`` and ``BadOrigin``."""
    checkpoints.require_origin(name)
    raw = checkpoints.require_log_key(public).public_bytes_raw()
    return VerifierKey(name, COSIGNATURE, raw)


def cosign(signer: Signer, name: str, text: str, time: int) -> NoteSignature:
    """A witness's signature line under a checkpoint's text; ``time`` in seconds since 1970."""
    signature = signer.sign(cosignature.message(text, time))
    key = cosigner_key(name, signer.public_key)
    return NoteSignature(name, key.key_id, Cosignature(time, signature).encode())


def cosigners(
    signed: Note, witnesses: Sequence[VerifierKey], *, now: int | None = None
) -> tuple[Cosigner, ...]:
    """The witnesses whose cosignatures hold; lines of unknown keys are passed over.

    Raises ``CosignatureForged`` if a line of a known key does not hold, and
    ``CosignatureFromFuture``.
    """
    found = []
    for key in witnesses:
        times = [
            verify_cosignature(key, signed.text, one.signature, now=now)
            for one in signed.signatures
            if (one.name, one.key_id) == (key.name, key.key_id)
        ]
        if times:
            found.append(Cosigner(key.name, max(times)))
    return tuple(found)


def verify_cosignature(
    key: VerifierKey, text: str, signature: bytes, *, now: int | None = None
) -> int:
    """Verify one cosignature over a note's text; its time.

    Raises ``CosignatureForged`` and, given ``now``, ``CosignatureFromFuture``.
    """
    try:
        found = cosignature.parse(signature)
        public = Ed25519PublicKey.from_public_bytes(key.public_key)
        public.verify(found.signature, cosignature.message(text, found.time))
    except (FormatError, InvalidSignature) as error:
        raise CosignatureForged(
            "cosignature does not hold", expected=f"a signature of {key.name[:80]!a}"
        ) from error
    if now is not None and found.time > now + MAX_SKEW:
        raise CosignatureFromFuture(
            f"{key.name[:80]!a} cosigned at a time that has not come",
            expected=f"at most {now + MAX_SKEW}",
            got=f"{found.time}",
        )
    return found.time


def verify_cosigned(
    content: bytes,
    key: PublicKey,
    demanded: WitnessPolicy,
    *,
    origin: str | None = None,
    now: int | None = None,
) -> Cosigned:
    """Verify a checkpoint's own signature, then its quorum of cosignatures.

    Raises what ``checkpoint.verify`` and ``cosigners`` raise, ``BadWitness`` if the log's own key
    is among the witnesses, and ``QuorumMissed``.
    """
    own = checkpoints.require_log_key(key).public_bytes_raw()
    if any(one.public_key == own for one in demanded.witnesses):
        raise BadWitness("a log's own key cannot be its witness")
    checkpoint = checkpoints.verify(content, key, origin=origin)
    found = cosigners(note.parse(content), demanded.witnesses, now=now)
    if len(found) < demanded.quorum:
        raise QuorumMissed(
            f"checkpoint of {checkpoint.size} entries lacks cosignatures",
            expected=f"{demanded.quorum} of {len(demanded.witnesses)} witnesses",
            got=f"{len(found)}",
        )
    return Cosigned(checkpoint, found)
