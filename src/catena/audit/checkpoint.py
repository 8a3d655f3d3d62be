"""Signing and verifying checkpoints with the log's Ed25519 key (C2SP tlog-checkpoint).

The key's name is the log's origin. A note may carry more signatures (witnesses'); exactly one
must be the log's, and it must hold.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from catena.errors import FormatError, LogInconsistent, UsageError
from catena.formats import note
from catena.formats.note import Checkpoint, Note, NoteSignature
from catena.formats.verifierkey import VerifierKey
from catena.keys.signer import PublicKey, Signer


class CheckpointMalformed(LogInconsistent):
    """The checkpoint is not a checkpoint."""

    code = "checkpoint-malformed"


class CheckpointForged(LogInconsistent):
    """The checkpoint is not signed by this log's key."""

    code = "checkpoint-forged"
    remedy = "Check that this is the log's public key; if it is, do not trust the log."


class ForeignOrigin(LogInconsistent):
    """The checkpoint speaks for another log."""

    code = "foreign-origin"
    remedy = "Check that this is the folder of the log you meant."


class UnusableLogKey(UsageError):
    """Logs are signed with Ed25519 and nothing else."""

    code = "unusable-log-key"
    remedy = "Use the Ed25519 key that `catena keys init` made as log.key."


class BadOrigin(UsageError):
    """A log's origin is also its key's name, which may hold no spaces and no plus."""

    code = "bad-origin"
    remedy = "Use a name such as `log.example.org/fleet`."


def require_log_key(key: PublicKey) -> Ed25519PublicKey:
    """The key as an Ed25519 key. Raises ``UnusableLogKey``."""
    if not isinstance(key, Ed25519PublicKey):
        raise UnusableLogKey("a log key must be Ed25519", got=type(key).__name__)
    return key


def require_origin(origin: str) -> None:
    """Refuse an origin that cannot name a key. Raises ``BadOrigin``."""
    if not note.is_key_name(origin):
        raise BadOrigin("not usable as a log's origin", got=ascii(origin[:80]))


def verifier_key(origin: str, key: PublicKey) -> VerifierKey:
    """A log's key as witnesses and readers are given it. Raises as the two above."""
    require_origin(origin)
    return VerifierKey(origin, note.ED25519, require_log_key(key).public_bytes_raw())


def sign(signer: Signer, origin: str, size: int, root: bytes) -> str:
    """The checkpoint of a tree as a signed note."""
    key = require_log_key(signer.public_key)
    text = Checkpoint(origin, size, root).encode()
    signature = NoteSignature(
        origin, note.key_id(origin, key.public_bytes_raw()), signer.sign(text.encode())
    )
    return Note(text, (signature,)).encode()


def verify(content: bytes, key: PublicKey, *, origin: str | None = None) -> Checkpoint:
    """Read a checkpoint and verify the log's own signature.

    1. It is a note, its text a checkpoint, in their one spelling.
    2. Its origin is the one expected, if one is.
    3. Exactly one signature has the origin's name and the key's id, and it holds.

    Raises ``CheckpointMalformed``, ``ForeignOrigin``, ``CheckpointForged``.
    """
    public = require_log_key(key)
    # 1.
    try:
        signed = note.parse(content)
        checkpoint = note.parse_checkpoint(signed.text)
    except FormatError as error:
        raise CheckpointMalformed(f"checkpoint cannot be read: {error}") from error
    if not note.is_key_name(checkpoint.origin):
        raise CheckpointMalformed("checkpoint's origin cannot name a key")
    # 2.
    if origin is not None and checkpoint.origin != origin:
        raise ForeignOrigin(
            "checkpoint is of another log", expected=origin, got=ascii(checkpoint.origin[:80])
        )
    # 3.
    key_id = note.key_id(checkpoint.origin, public.public_bytes_raw())
    own = [
        one for one in signed.signatures if (one.name, one.key_id) == (checkpoint.origin, key_id)
    ]
    if len(own) != 1:
        raise CheckpointForged(
            "checkpoint does not carry one signature of this key",
            expected=f"key id {key_id.hex()}",
            got=f"{len(own)} signatures of it",
        )
    try:
        public.verify(own[0].signature, signed.text.encode())
    except InvalidSignature as error:
        raise CheckpointForged("signature of the checkpoint does not hold") from error
    return checkpoint
