"""The proof that a log grew, from its hash tiles (C2SP tlog-tiles): what a witness asks for.

A tile is read for each of the few subtrees that the proof names, however large the log is.
What the proof is worth, only its verification shows.
"""

from __future__ import annotations

from catena.audit import merkle
from catena.audit.hashes import TileHashes
from catena.audit.reader import LogReader
from catena.errors import LogInconsistent
from catena.formats.note import Checkpoint


class CheckpointNotContained(LogInconsistent):
    """A log that does not contain the tree of a checkpoint that was signed for it."""

    code = "checkpoint-not-contained"
    remedy = "The log was forked or rewound: keep the folder and the checkpoint as evidence."


def prove_growth(
    reader: LogReader, old: int, new: int, grown: int | None = None
) -> tuple[bytes, ...]:
    """The consistency proof from size ``old`` to ``new``; empty where nothing is to be proven.

    ``grown`` is the log's size by now, if it is larger: only the partial tiles of its newest tree
    are sure to be there. Raises ``TileUnavailable``.
    """
    if not 0 < old < new:
        return ()
    size = max(new, grown or 0)
    return merkle.consistency_proof(old, new, TileHashes(reader, size))


def require_contained(reader: LogReader, past: Checkpoint, size: int) -> None:
    """Check that a log of ``size``, whose tiles were verified, contains an older checkpoint's tree.

    Raises ``CheckpointNotContained`` and ``TileUnavailable``.
    """
    if past.size > size:
        raise CheckpointNotContained(
            "the log is older than a checkpoint of it",
            expected=f"at least {past.size} entries",
            got=f"{size}",
        )
    root = merkle.EMPTY_ROOT
    if past.size:
        root = merkle.range_root(0, past.size, TileHashes(reader, size))
    if root != past.root:
        raise CheckpointNotContained(
            f"the log's first {past.size} entries have another root",
            expected=past.root.hex(),
            got=root.hex(),
        )
