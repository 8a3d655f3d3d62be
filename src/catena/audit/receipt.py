"""Receipts: proof for whoever was decided about that the decision is in the log.

A receipt is a tlog-proof (``formats.tlogproof``) whose extra data is the entry itself, so that it says what
was decided and can be checked with nothing but the log's public key.
"""

from __future__ import annotations

from dataclasses import dataclass

from catena.audit import checkpoint as checkpoints
from catena.audit import merkle
from catena.audit.entries import Entry
from catena.audit.hashes import TileHashes, read_bundle, read_checkpoint
from catena.audit.leaf import open_entry
from catena.audit.reader import LogReader
from catena.audit.tiles import TILE_WIDTH
from catena.errors import NotFound
from catena.formats import tlogproof
from catena.formats.note import Checkpoint
from catena.formats.tlogproof import TlogProof
from catena.keys.signer import PublicKey


class NoEntryInReceipt(merkle.ProofMismatch):
    """A proof without the entry that it is about, which nobody has given either."""

    code = "receipt-without-entry"
    remedy = "Give the entry as well, or make the proof with `catena audit prove`."


class NoSuchEntry(NotFound):
    """An entry that the log does not have."""

    code = "no-such-entry"
    remedy = "An entry is named by its index, or by the SHA-256 of its leaf in hex."


@dataclass(frozen=True, slots=True)
class ProvenEntry:
    """An entry that is in the tree of ``checkpoint``, which the log's key signed."""

    index: int
    entry: Entry
    checkpoint: Checkpoint


def verify_proof(
    data: bytes, key: PublicKey, *, origin: str | None = None, leaf: bytes | None = None
) -> ProvenEntry:
    """Verify a tlog-proof (C2SP tlog-proof, "Verifying").

    1. The leaf is ``leaf``, or else the extra data.
    2. The checkpoint is signed by the log's key, for the expected origin.
    3. The inclusion proof leads from the leaf to its root.
    4. The leaf is an entry that the log's key signed.

    Raises ``FormatError``, ``LogInconsistent``, or ``Refusal`` for step 4.
    """
    proof = tlogproof.parse(data)
    leaf = proof.extra if leaf is None else leaf  # 1.
    if leaf is None:
        raise NoEntryInReceipt("the proof does not hold its entry")
    head = checkpoints.verify(proof.checkpoint.encode(), key, origin=origin)  # 2.
    merkle.verify_inclusion(  # 3.
        merkle.leaf_hash(leaf), proof.index, head.size, proof.hashes, head.root
    )
    return ProvenEntry(proof.index, open_entry(leaf, key), head)  # 4.


def prove(log: LogReader, which: str, key: PublicKey, *, origin: str | None = None) -> TlogProof:
    """The proof of an entry by index, or by the hex SHA-256 of its leaf, in the newest tree.

    Raises ``NoSuchEntry``, ``LogMissing``, ``LogInconsistent``.
    """
    content = read_checkpoint(log)
    head = checkpoints.verify(content, key, origin=origin)
    hashes = TileHashes(log, head.size)
    index = _find(hashes, which, head.size)
    leaf = read_bundle(log, index // TILE_WIDTH, head.size)[index % TILE_WIDTH]
    path = merkle.inclusion_proof(index, head.size, hashes)
    proof = TlogProof(index, path, content.decode(), leaf)
    verify_proof(proof.encode().encode(), key, origin=origin)
    return proof


def _find(hashes: TileHashes, which: str, size: int) -> int:
    if which.isascii() and which.isdecimal() and len(which) < 20:
        if int(which) < size:
            return int(which)
        raise NoSuchEntry("the log has no such entry", expected=f"below {size}", got=which)
    try:
        wanted = bytes.fromhex(which.removeprefix("sha256:"))
    except ValueError as error:
        raise NoSuchEntry("no index and no SHA-256", got=ascii(which[:80])) from error
    for tile in range(-(-size // TILE_WIDTH) if len(wanted) == merkle.HASH_SIZE else 0):
        row = hashes.leaves(tile)
        for at in range(0, len(row), merkle.HASH_SIZE):
            if row[at : at + merkle.HASH_SIZE] == wanted:
                return tile * TILE_WIDTH + at // merkle.HASH_SIZE
    raise NoSuchEntry("no entry has this leaf hash", got=wanted.hex()[:64])
