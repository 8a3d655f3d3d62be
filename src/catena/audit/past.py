"""A log held against its past: what it was when it was seen before, and what its own parts lead to."""

from __future__ import annotations

from collections.abc import Sequence

from catena.audit import merkle, tiles
from catena.audit.merkle import ProofMismatch
from catena.audit.storage import Batch, LogStorage
from catena.audit.tree import Growth, TileNodes, Tree, load_tree
from catena.errors import FormatError, LogInconsistent
from catena.formats.note import Checkpoint


class LogRewound(LogInconsistent):
    """The log is older than a checkpoint that was seen before."""

    code = "log-rewound"
    remedy = (
        "The folder was restored from an older copy. Restore the newest; keep both as evidence."
    )


def require_not_rewound(head: Checkpoint, past: Checkpoint) -> None:
    """Refuse a log that is smaller than it was. Raises ``LogRewound``."""
    if head.size < past.size:
        raise LogRewound(
            "the log is older than a checkpoint seen before",
            expected=f"at least {past.size} entries",
            got=f"{head.size}",
        )


class LogForked(LogInconsistent):
    """The log contradicts a checkpoint that was seen before."""

    code = "log-forked"


class LogDamaged(LogInconsistent):
    """The log's tiles do not lead to its checkpoint."""

    code = "log-damaged"
    remedy = "Restore the log from a copy; `catena audit verify` names the file."


def load_right_edge(storage: LogStorage, head: Checkpoint) -> Tree:
    """The right edge, which must lead to the root that ``head`` signs. Raises ``LogDamaged``."""
    try:
        tree = load_tree(storage, head.size)
    except FormatError as error:
        raise LogDamaged(f"the log's last tiles cannot be used: {error}") from error
    require_root(tree, head)
    return tree


def grown(tree: Tree, batches: Sequence[Batch]) -> Growth:
    """The tree with staged batches, which must follow it without a gap. Raises ``LogDamaged``."""
    entries: list[bytes] = []
    for batch in batches:
        if batch.start != tree.size + len(entries):
            raise LogDamaged("entries behind the published checkpoint are missing")
        try:
            entries += tiles.parse_bundle(batch.bundle, batch.count)
        except FormatError as error:
            raise LogDamaged(f"staged entries cannot be read: {error}") from error
    return tree.grow(entries)


def require_root(tree: Tree, head: Checkpoint) -> None:
    """Refuse a tree that is not the one that ``head`` signs. Raises ``LogDamaged``."""
    if (tree.size, tree.frontier.root()) != (head.size, head.root):
        raise LogDamaged(
            "the log does not lead to its checkpoint",
            expected=f"{head.size} entries",
            got=f"{tree.size}",
        )


def require_contains(
    growth: Growth, known: Checkpoint, storage: LogStorage, problem: type[LogInconsistent]
) -> None:
    """Refuse a log that a known checkpoint's tree is no beginning of.

    Newer than ``growth.before``, the tree is made from the staged entries; older, a proof from
    the tiles must connect the two.
    """
    if known.size > growth.tree.size:
        raise problem(
            "a checkpoint covers entries that the log does not have",
            expected=f"{known.size} entries",
            got=f"{growth.tree.size}",
        )
    if known.size == 0:
        return  # every log starts from the empty tree
    frontier = growth.before.frontier
    if known.size > frontier.size:
        leaves = [growth.leaf_hash(index) for index in range(frontier.size, known.size)]
        frontier = frontier.extend(leaves)
    nodes = TileNodes(storage, frontier.size)
    try:
        proof = merkle.consistency_proof(known.size, frontier.size, nodes)
        merkle.verify_consistency(known.size, known.root, frontier.size, frontier.root(), proof)
    except ProofMismatch as error:
        raise problem("the log does not contain the tree of a checkpoint seen before") from error
    except FormatError as error:
        raise LogDamaged(f"the log's tiles cannot be used: {error}") from error
