"""Receipts: proof for whoever was decided about that the decision is in the log."""

from __future__ import annotations

from catena.audit import checkpoint as checkpoints
from catena.audit import merkle
from catena.formats.nodeapi import Receipt
from catena.formats.note import Checkpoint
from catena.keys.signer import PublicKey


class MalformedReceipt(merkle.ProofMismatch):
    """A receipt whose hashes are not hashes."""

    code = "malformed-receipt"


def verify_receipt(
    receipt: Receipt, key: PublicKey, *, origin: str | None = None, leaf: bytes | None = None
) -> Checkpoint:
    """Check that the receipt's leaf is in the tree that its checkpoint signs.

    ``leaf`` is the entry itself, if the holder has it. Raises ``LogInconsistent``.
    """
    head = checkpoints.verify(receipt.checkpoint.encode(), key, origin=origin)
    try:
        leaf_hash = bytes.fromhex(receipt.leaf_hash)
        proof = [bytes.fromhex(digest) for digest in receipt.proof]
    except ValueError as error:
        raise MalformedReceipt("receipt holds something that is not hex") from error
    if leaf is not None and merkle.leaf_hash(leaf) != leaf_hash:
        raise merkle.ProofMismatch("the receipt is for another entry")
    merkle.verify_inclusion(leaf_hash, receipt.index, head.size, proof, head.root)
    return head
