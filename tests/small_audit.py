"""A small log made by hand, with a proof and a report of it, for tests of several rooms."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from catena.audit import checkpoint as checkpoints
from catena.audit import cosigned
from catena.audit.entries import (
    Denial,
    Enrolment,
    InForce,
    LoggedReason,
    SecretReleased,
    Verdict,
)
from catena.audit.leaf import seal_entry
from catena.audit.people import Person, pseudonym
from catena.audit.report import ReportBody, ReportedEntry, write_report
from catena.audit.tree import EMPTY_TREE
from catena.formats import note
from catena.formats.note import Note
from catena.formats.tlogproof import TlogProof
from catena.keys.signer import PrivateKeySigner, public_pem

ORIGIN = "log.example.org/fleet"
NODE = "a" * 64
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIGNER = PrivateKeySigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
WITNESS = PrivateKeySigner(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
WITNESS_NAME = "witness.example.org/w1"

IN_FORCE = InForce(
    documents=(sha256(b"reference").hexdigest(),),
    security_floor=0,
    container_pcr=15,
    container_indices=(),
    quirks="3" * 64,
)
CONTENTS = {
    sha256(one).hexdigest(): one for one in (b"evidence", b"policy", msgspec.json.encode(IN_FORCE))
}
_EVIDENCE, _POLICY, _IN_FORCE = CONTENTS
_ABOUT = {"at": NOON, "actor": NODE, "node_id": NODE}

ENTRIES = (
    Enrolment(**_ABOUT, ak_sha256="1" * 64, ek_root="vendor", mode="approve", state="pending"),
    Verdict(
        **_ABOUT,
        node_name="n1",
        verdict="untrusted",
        state="untrusted",
        reasons=(LoggedReason(code="x", message="y"),),
        reasons_total=1,
        evidence_sha256=_EVIDENCE,
        policy_sha256=_POLICY,
        references=(_IN_FORCE,),
    ),
    SecretReleased(**_ABOUT, node_name="n1", secret="db", version=1),
    Denial(**_ABOUT, request="attest", code="stale", message="late", request_sha256="2" * 64),
)
LEAVES = tuple(seal_entry(SIGNER, entry) for entry in ENTRIES)
_GROWTH = EMPTY_TREE.grow(LEAVES)
CHECKPOINT = checkpoints.sign(SIGNER, ORIGIN, len(LEAVES), _GROWTH.tree.frontier.root())
PROOFS = tuple(
    TlogProof(index, tuple(path), CHECKPOINT, LEAVES[index]) for index, path in _GROWTH.proofs()
)
WITNESS_KEY = cosigned.cosigner_key(WITNESS_NAME, WITNESS.public_key).encode()
DEMANDED = cosigned.policy([WITNESS_KEY], 1)


PEOPLE = (Person(pseudonym=pseudonym(bytes(16), "Ada"), salt=bytes(16).hex(), name="Ada"),)


def cosigned_checkpoint() -> bytes:
    """The checkpoint with the witness's line."""
    signed = note.parse(CHECKPOINT.encode())
    line = cosigned.cosign(WITNESS, WITNESS_NAME, signed.text, 1_700_000_000)
    return Note(signed.text, (*signed.signatures, line)).encode().encode()


BODY = ReportBody(
    scope="node",
    at=NOON,
    nodes=(NODE,),
    log_key=public_pem(SIGNER.public_key).decode(),
    checkpoint=CHECKPOINT,
    entries=tuple(
        ReportedEntry(
            index=one.index, leaf=one.extra, proof=tuple(digest.hex() for digest in one.hashes)
        )
        for one in PROOFS
        if one.extra is not None
    ),
    contents=CONTENTS,
    missing=IN_FORCE.documents,
)
REPORT = write_report(BODY, WITNESS, NOON)
