"""Merkle tree hashing and proofs (RFC 6962 section 2.1; RFC 9162 section 2.1.3–2.1.4).

``Frontier`` is the compact range of a tree: the roots of the perfect subtrees that its size
in binary consists of. It grows in amortised constant time and never needs the leaves
again, so a log of any length costs a few hundred bytes of memory.

A node is named ``(level, index)``: the perfect subtree of ``2**level`` leaves that starts at
leaf ``index * 2**level``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from catena.errors import LogInconsistent

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256().digest()

Node = tuple[int, int]
NodeHash = Callable[[Node], bytes]
"""Where proofs take the hashes of perfect subtrees from."""


class ProofMismatch(LogInconsistent):
    """A proof that does not lead to the root it claims to lead to."""

    code = "proof-mismatch"


def leaf_hash(entry: bytes) -> bytes:
    """Hash of a leaf: SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def leaf_hashes(entries: Sequence[bytes]) -> list[bytes]:
    """``leaf_hash`` of each."""
    sha256 = hashlib.sha256
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an interior node: SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: hashes of its perfect subtrees, largest first."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def root(self) -> bytes:
        """The tree's root hash."""
        if not self.hashes:
            return EMPTY_ROOT
        return _fold(self.hashes)

    def nodes(self) -> dict[Node, bytes]:
        """The perfect subtrees by name."""
        levels = [level for level in range(self.size.bit_length()) if self.size >> level & 1]
        return {
            (level, (self.size >> level) - 1): digest
            for level, digest in zip(reversed(levels), self.hashes, strict=True)
        }

    def edges(self) -> list[bytes | None]:
        """For each level below the root: the hash over what its perfect subtrees leave over.

        That is the ragged subtree at the right end of the level, None where there is none.
        """
        edges: list[bytes | None] = []
        ragged, hashes = None, list(self.hashes)
        for level in range((self.size - 1).bit_length() if self.size else 0):
            edges.append(ragged)
            if self.size >> level & 1:
                digest = hashes.pop()
                ragged = digest if ragged is None else node_hash(digest, ragged)
        return edges

    def extend(self, leaves: Iterable[bytes], made: dict[Node, bytes] | None = None) -> Frontier:
        """The frontier after more leaf hashes; every subtree completed is put into ``made``."""
        grown, rows = self.grow(list(leaves))
        if made is not None:
            for level, row in enumerate(rows):
                made.update(
                    ((level, index), digest) for index, digest in enumerate(row.hashes, row.start)
                )
        return grown

    def grow(self, leaves: list[bytes]) -> tuple[Frontier, tuple[Row, ...]]:
        """The frontier after more leaf hashes, and the nodes on each level that took part.

        A level at a time, because a loop over nodes costs more than hashing them.
        """
        rows: list[Row] = []
        kept = {level: digest for (level, _), digest in self.nodes().items()}
        level, hashes, start = 0, leaves, self.size
        while hashes:
            if start & 1:
                hashes, start = [kept.pop(level), *hashes], start - 1
            rows.append(Row(start, hashes))
            if len(hashes) & 1:
                kept[level] = hashes[-1]
            hashes, start, level = _parents(hashes), start >> 1, level + 1
        hashes = [kept[level] for level in sorted(kept, reverse=True)]
        return Frontier(self.size + len(leaves), tuple(hashes)), tuple(rows)


@dataclass(frozen=True, slots=True)
class Row:
    """Neighbouring nodes of one level; the first has index ``start``, which is even."""

    start: int
    hashes: list[bytes]


def _parents(hashes: list[bytes]) -> list[bytes]:
    """The level above; a last node without a sibling has no parent yet."""
    sha256 = hashlib.sha256
    pairs = zip(hashes[::2], hashes[1::2], strict=False)
    return [sha256(b"\x01" + left + right).digest() for left, right in pairs]


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """Root over any sequence of leaf hashes or of equally high subtree roots."""
    return Frontier().extend(hashes).root()


def range_root(start: int, end: int, node: NodeHash) -> bytes:
    """Root over leaves ``start`` to ``end`` (exclusive), a range that a proof may name."""
    parts = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        parts.append(node((level, start >> level)))
        start += 1 << level
    return _fold(parts)


def inclusion_proof(index: int, size: int, node: NodeHash) -> tuple[bytes, ...]:
    """PATH(index, D[size]), from the leaf up (RFC 6962 section 2.1.1)."""
    proof = []
    start, end = 0, size
    while end - start > 1:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if index < split:
            proof.append(range_root(split, end, node))
            end = split
        else:
            proof.append(range_root(start, split, node))
            start = split
    return tuple(reversed(proof))


def consistency_proof(old: int, new: int, node: NodeHash) -> tuple[bytes, ...]:
    """PROOF(old, D[new]) for ``0 < old <= new`` (RFC 6962 section 2.1.2)."""
    proof = []
    start, end = 0, new
    while old != end:
        split = start + (1 << ((end - start - 1).bit_length() - 1))
        if old <= split:
            proof.append(range_root(split, end, node))
            end = split
        else:
            proof.append(range_root(start, split, node))
            start = split
    if start:
        proof.append(range_root(start, end, node))
    return tuple(reversed(proof))


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that ``leaf`` (a leaf hash) is entry ``index`` of the tree (RFC 9162 section 2.1.3.2).

    Raises ``ProofMismatch``.
    """
    _require_hashes(leaf, *proof)
    # 1. The index must lie in the tree.
    if not 0 <= index < size:
        raise ProofMismatch("leaf index lies outside the tree")
    # 2.-4. Walk up to the top.
    digest = leaf
    for sibling, on_left in _walk(index, size - 1, proof):
        digest = node_hash(sibling, digest) if on_left else node_hash(digest, sibling)
    # 5. There must be the root.
    if digest != root:
        raise ProofMismatch("inclusion proof leads to another root")


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the new tree only appended to the old one (RFC 9162 section 2.1.4.2).

    Sizes must be positive: an empty tree is a prefix of every tree and proves nothing. Raises
    ``ProofMismatch``.
    """
    _require_hashes(*proof)
    if not 0 < old_size <= new_size:
        raise ProofMismatch("tree sizes are out of order")
    if old_size == new_size:
        if proof or old_root != new_root:
            raise ProofMismatch("trees of one size differ")
        return
    # 1. An old tree that is one perfect subtree is itself the first node of the proof.
    nodes = list(proof)
    if old_size & (old_size - 1) == 0:
        nodes.insert(0, old_root)
    if not nodes:
        raise ProofMismatch("consistency proof is too short")
    # 2.-3. Start at the largest perfect subtree on the old tree's right edge.
    height = (old_size & -old_size).bit_length() - 1
    fn, sn = (old_size - 1) >> height, (new_size - 1) >> height
    # 4.-6. Both roots grow from it: the old one only by nodes on its left.
    old = new = nodes[0]
    for sibling, on_left in _walk(fn, sn, nodes[1:]):
        if on_left:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    if old != old_root:
        raise ProofMismatch("consistency proof leads to another old root")
    if new != new_root:
        raise ProofMismatch("consistency proof leads to another new root")


def _walk(fn: int, sn: int, proof: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The proof's hashes from node ``fn`` up to the top, each with whether it stands left.

    ``sn`` is the last node of the level. RFC 9162 writes this loop twice, in sections
    2.1.3.2 (step 4) and 2.1.4.2 (step 6). Raises ``ProofMismatch`` unless it ends at the top.
    """
    for sibling in proof:
        if sn == 0:
            raise ProofMismatch("proof is too long")
        on_left = bool(fn & 1) or fn == sn
        yield sibling, on_left
        while on_left and not fn & 1 and fn:
            fn, sn = fn >> 1, sn >> 1
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise ProofMismatch("proof is too short")


def _require_hashes(*hashes: bytes) -> None:
    if any(len(digest) != HASH_SIZE for digest in hashes):
        raise ProofMismatch("proof holds something that is no hash", expected=f"{HASH_SIZE} bytes")


def _fold(parts: Sequence[bytes]) -> bytes:
    """Join perfect subtrees, largest first, into their root."""
    digest = parts[-1]
    for left in reversed(parts[:-1]):
        digest = node_hash(left, digest)
    return digest
