"""Following a log: from a checkpoint that was verified before to the newest, step by step.

1. The newest checkpoint is signed by the log's key, for the same origin.
2. The log has not become smaller, and of one size there is one root.
3. The right edge of the known tree, as the tiles have it, hashes to the known root.
4. Every new entry is signed by the log's key and reads as one; it is handed on.
5. The right edge, grown by the new entries, hashes to the new root.

Steps 3 and 5 prove that entries were only appended: a rewritten entry, known or new, changes one of the
two roots. Memory does not grow with the log. An entry is handed on before step 5 is reached: whoever
remembers the checkpoint does so after the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from catena.audit import checkpoint as checkpoints
from catena.audit import growth, merkle
from catena.audit.hashes import TileHashes, read_bundle, read_checkpoint
from catena.audit.merkle import Frontier
from catena.audit.past import LogForked, require_not_rewound
from catena.audit.reader import LogReader
from catena.audit.tiles import TILE_WIDTH
from catena.audit.verify import RootMismatch, VerifiedEntry, open_leaf
from catena.formats import note
from catena.formats.addcheckpoint import AddCheckpoint
from catena.formats.note import Checkpoint
from catena.keys.signer import PublicKey


@dataclass(frozen=True, slots=True)
class Known:
    """A checkpoint that was verified, with its text as the log signed it."""

    checkpoint: Checkpoint
    text: str


def known(content: bytes, key: PublicKey, *, origin: str | None = None) -> Known:
    """A checkpoint to go on from. Raises ``LogInconsistent``."""
    return Known(checkpoints.verify(content, key, origin=origin), content.decode())


class Following:
    """One step from ``past`` (None: from nothing) to the newest checkpoint.

    Iterate to the end: ``new`` is verified only then.
    """

    def __init__(
        self, log: LogReader, past: Known | None, key: PublicKey, *, origin: str | None = None
    ) -> None:
        self._log = log
        self._key = key
        expected = origin if past is None else past.checkpoint.origin
        self.new = known(read_checkpoint(log), key, origin=expected)  # 1.
        self.past = None if past is None or past.checkpoint.size == 0 else past
        _check_order(self.past, self.new)  # 2.

    def __iter__(self) -> Iterator[VerifiedEntry]:
        """The new entries. Raises ``LogInconsistent``, ``LogUnreadable``."""
        head = self.new.checkpoint
        frontier = self._known_edge()  # 3.
        while frontier.size < head.size:
            index = frontier.size // TILE_WIDTH
            bundle = read_bundle(self._log, index, head.size)[frontier.size % TILE_WIDTH :]
            for number, leaf in enumerate(bundle, frontier.size):
                yield VerifiedEntry(number, open_leaf(leaf, self._key, number))  # 4.
            frontier = frontier.extend([merkle.leaf_hash(leaf) for leaf in bundle])
        if frontier.root() != head.root:  # 5.
            raise RootMismatch("the entries lead to another root", file="checkpoint")

    def _known_edge(self) -> Frontier:
        """The right edge of the known tree, from tiles that may be of a larger one by now."""
        if self.past is None:
            return Frontier()
        past = self.past.checkpoint
        edge = TileHashes(self._log, past.size, self.new.checkpoint.size).frontier()
        if edge.root() != past.root:
            raise LogForked("the log does not contain the tree of a checkpoint seen before")
        return edge


def _check_order(past: Known | None, new: Known) -> None:
    if past is None:
        return
    old, head = past.checkpoint, new.checkpoint
    require_not_rewound(head, old)
    if head.size == old.size and head.root != old.root:
        raise LogForked(
            "two checkpoints of one size have different roots",
            expected=old.root.hex(),
            got=head.root.hex(),
        )


def prove_growth(
    log: LogReader, past: bytes, key: PublicKey, *, origin: str | None = None
) -> AddCheckpoint:
    """The proof that the newest tree grew from that of ``past``, a checkpoint, as witnesses take it.

    It is verified before it is returned. Raises ``LogInconsistent``, ``LogMissing``.
    """
    old = known(past, key, origin=origin)
    new = known(read_checkpoint(log), key, origin=old.checkpoint.origin)
    _check_order(old, new)
    size, grown = old.checkpoint.size, new.checkpoint.size
    proof = growth.prove_growth(log, size, grown)
    if size:  # an empty tree is the beginning of every tree
        merkle.verify_consistency(size, old.checkpoint.root, grown, new.checkpoint.root, proof)
    return AddCheckpoint(size, proof, note.parse(new.text.encode()), new.checkpoint)
