"""A witness of logs: it cosigns a checkpoint that grew from the one it cosigned before.

The steps of C2SP tlog-witness, "add-checkpoint", in ``Witness.add_checkpoint``. Each refusal is
an error of its own; which HTTP status it has is known to ``server.witness``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from catena.audit import cosigned, merkle
from catena.audit.merkle import EMPTY_ROOT
from catena.audit.witness_state import WitnessState, WitnessUnwritable
from catena.errors import FormatError, NotFound, Refusal, UsageError
from catena.formats import addcheckpoint, verifierkey
from catena.formats.addcheckpoint import AddCheckpoint
from catena.formats.note import ED25519, Checkpoint, Note, NoteSignature
from catena.formats.verifierkey import VerifierKey
from catena.keys.signer import Signer


class BadWatchedLog(UsageError):
    """A log that cannot be watched so."""

    code = "bad-watched-log"
    remedy = (
        "Give the log's own key as `NAME+KEYID+KEY`, which `catena audit witness log-key` prints."
    )


class UnknownLog(NotFound):
    """A checkpoint of a log that this witness does not watch."""

    code = "unknown-log"
    remedy = "Ask the witness's operator to add the log, with its origin and key."


class UntrustedCheckpoint(Refusal):
    """A checkpoint without a signature that holds under a key of its log."""

    code = "untrusted-checkpoint"
    remedy = "Sign with the key that the witness was given for this log."


class OldSizeBeyondCheckpoint(UsageError):
    """A request whose old tree is larger than its new one."""

    code = "old-size-beyond-checkpoint"
    remedy = "Send the size that the witness cosigned last, and a newer checkpoint."


class OldSizeMoved(Refusal):
    """A request that starts from another size than the witness is at."""

    code = "old-size-moved"
    remedy = "Ask again with a proof from the size in the answer."

    def __init__(self, size: int, got: int) -> None:
        super().__init__("the witness is at another size", expected=f"old {size}", got=f"old {got}")
        self.size = size


class ForkShown(Refusal):
    """Two checkpoints of one size and one log, both signed by it, with different roots."""

    code = "fork-shown"
    remedy = "The log is forked. Both checkpoints are in the witness's folder: publish them."

    def __init__(self, origin: str, size: int) -> None:
        super().__init__(f"{origin[:80]!a} has shown another tree of {size} entries")
        self.size = size


class GrowthUnproven(Refusal):
    """A checkpoint that is not proven to contain the tree that was cosigned before."""

    code = "growth-unproven"
    remedy = (
        "Send the consistency proof from the witness's size. If the log cannot make one that "
        "holds, it was forked or rewound."
    )


@dataclass(frozen=True, slots=True)
class WatchedLog:
    """A log's origin and the keys that may sign its checkpoints (kind 0x01)."""

    origin: str
    keys: tuple[VerifierKey, ...]


def watch(texts: Iterable[str], origin: str | None = None) -> WatchedLog:
    """A log by its verifier keys; its origin is the first key's name unless given.

    Raises ``BadWatchedLog``.
    """
    keys = tuple(map(_parse_log_key, texts))
    if not keys:
        raise BadWatchedLog("a log needs a key")
    return WatchedLog(keys[0].name if origin is None else origin, keys)


def _parse_log_key(text: str) -> VerifierKey:
    try:
        key = verifierkey.parse(text)
    except FormatError as error:
        raise BadWatchedLog(f"not a log's key: {error}") from error
    if key.kind != ED25519:
        raise BadWatchedLog(
            "this key cosigns, it does not sign a log",
            expected="kind 0x01",
            got=f"0x{key.kind:02x}",
        )
    return key


@dataclass(frozen=True, slots=True)
class Witness:
    """One cosigner: its name and key, the logs it watches, its memory, its clock.

    ``now`` gives seconds since 1970. Safe to share between threads.
    """

    name: str
    signer: Signer
    logs: Mapping[str, WatchedLog]
    state: WitnessState
    now: Callable[[], int]

    def add_checkpoint(self, body: bytes) -> NoteSignature:
        """The cosignature that a request is answered with.

        1. The body is a request in its one spelling.
        2. Its checkpoint's origin is of a log that is watched.
        3. A key of that log signed it; lines of other keys are passed over.
        4. The old size is not beyond the checkpoint's.
        5. The old size is the one cosigned last, zero if there is none.
        6. Of one size there is one root.
        7. The new tree contains the old one.
        8. It is remembered, on disk; from 5 to here nobody else touches this log's record.
        9. It is cosigned.

        Raises ``FormatError``, ``UnknownLog``, ``UntrustedCheckpoint``,
        ``OldSizeBeyondCheckpoint``, ``OldSizeMoved``, ``ForkShown``, ``GrowthUnproven``, and what
        ``WitnessState`` raises.
        """
        request = addcheckpoint.parse(body)  # 1.
        new = request.checkpoint
        log = self.logs.get(new.origin)
        if log is None:  # 2.
            raise UnknownLog("this log is not watched here", got=ascii(new.origin[:80]))
        own = _own_signatures(request.signed, log)  # 3.
        if request.old_size > new.size:  # 4.
            raise OldSizeBeyondCheckpoint(
                "the old size is beyond the checkpoint",
                expected=f"at most {new.size}",
                got=f"{request.old_size}",
            )
        with self.state.holding(log.origin):
            latest = self.state.latest(log.origin)
            self._require_growth(request, latest, body)  # 5. to 7.
            if latest is None or new.size > latest.size:
                self.state.advance(log.origin, Note(request.signed.text, own))  # 8.
            # Inside the lock: by the time it is signed there is no larger tree that was seen.
            return cosigned.cosign(self.signer, self.name, request.signed.text, self.now())  # 9.

    def _require_growth(
        self, request: AddCheckpoint, latest: Checkpoint | None, body: bytes
    ) -> None:
        size = 0 if latest is None else latest.size
        new = request.checkpoint
        if latest is not None and new.size == size and new.root != latest.root:
            # Whatever old size it came with. A full disk must not hide it.
            with contextlib.suppress(WitnessUnwritable):
                self.state.keep_fork(new.origin, new, body)
            raise ForkShown(new.origin, size)
        if request.old_size != size:
            raise OldSizeMoved(size, request.old_size)
        _prove_growth(request, size, EMPTY_ROOT if latest is None else latest.root)


def _prove_growth(request: AddCheckpoint, size: int, root: bytes) -> None:
    """Step 7. An empty tree is in every tree, which takes no proof; it has one root, too."""
    new = request.checkpoint
    if new.size == 0 and new.root != EMPTY_ROOT:
        raise GrowthUnproven("an empty tree has another root", expected=EMPTY_ROOT.hex())
    if size == 0:
        if request.proof:
            raise GrowthUnproven("there is nothing to prove from an empty tree", expected="old 0")
        return
    try:
        merkle.verify_consistency(size, root, new.size, new.root, request.proof)
    except merkle.ProofMismatch as error:
        raise GrowthUnproven(
            f"consistency proof of {new.origin[:80]!a} does not hold: {error}",
            expected=f"growth from {size} to {new.size} entries",
        ) from error


def _own_signatures(signed: Note, log: WatchedLog) -> tuple[NoteSignature, ...]:
    """The signatures of the log's own keys, all of which must hold; at least one."""
    own = []
    for key in log.keys:
        public = Ed25519PublicKey.from_public_bytes(key.public_key)
        for one in signed.signatures:
            if (one.name, one.key_id) != (key.name, key.key_id):
                continue
            try:
                public.verify(one.signature, signed.text.encode())
            except InvalidSignature as error:
                raise UntrustedCheckpoint("signature of the checkpoint does not hold") from error
            own.append(one)
    if not own:
        raise UntrustedCheckpoint(
            "no key of this log signed the checkpoint",
            expected=", ".join(f"key id {key.key_id.hex()}" for key in log.keys[:4]),
        )
    return tuple(own[: len(log.keys)])
