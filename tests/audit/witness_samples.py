"""What the tests of witnesses share: logs that grow and fork, requests for them, a witness."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from audit_samples import ORIGIN

from catena.audit import checkpoint as checkpoints
from catena.audit import merkle
from catena.audit.merkle import Frontier
from catena.audit.witness import Witness, watch
from catena.audit.witness_state import WitnessState
from catena.formats import note
from catena.formats.addcheckpoint import AddCheckpoint
from catena.formats.note import ED25519
from catena.formats.verifierkey import VerifierKey

NAME = "witness.example.org/w1"
TIME = 1_800_000_000


@dataclass
class PaperLog:
    """A log of which only the tree exists; ``fork`` makes another with the same beginning."""

    signer: object
    origin: str = ORIGIN
    leaves: list[bytes] = field(default_factory=list)

    def grow(self, count: int, salt: str = "") -> PaperLog:
        for _ in range(count):
            entry = f"{salt}{len(self.leaves)}".encode()
            self.leaves.append(merkle.leaf_hash(entry))
        return self

    def fork(self, size: int) -> PaperLog:
        return PaperLog(self.signer, self.origin, self.leaves[:size])

    def checkpoint(self, size: int | None = None) -> str:
        size = len(self.leaves) if size is None else size
        root = Frontier().extend(self.leaves[:size]).root()
        return checkpoints.sign(self.signer, self.origin, size, root)

    def proof(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        new = len(self.leaves) if new is None else new
        nodes: dict = {}
        Frontier().extend(self.leaves, nodes)
        return merkle.consistency_proof(old, new, nodes.__getitem__) if 0 < old < new else ()

    def request(self, old: int, new: int | None = None, *, proof=None) -> bytes:
        signed = note.parse(self.checkpoint(new).encode())
        head = note.parse_checkpoint(signed.text)
        hashes = self.proof(old, head.size) if proof is None else proof
        return AddCheckpoint(old, hashes, signed, head).encode()

    def key(self) -> str:
        raw = self.signer.public_key.public_bytes_raw()
        return VerifierKey(self.origin, ED25519, raw).encode()


def witness_of(folder: Path, signer, *logs: PaperLog, now=lambda: TIME) -> Witness:
    watched = {log.origin: watch([log.key()]) for log in logs}
    return Witness(NAME, signer, watched, WitnessState(folder), now)
