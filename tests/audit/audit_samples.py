"""What the tests of the audit room share: names, entries, a look at a folder."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from catena.audit.entries import CertificateIssued, Denial, Enrolment, Verdict

ORIGIN = "log.example.org/fleet"
NODE = "a" * 64
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def sample_entry(number: int):
    about = {
        "at": NOON + timedelta(seconds=number),
        "actor": NODE,
        "node_id": NODE,
    }
    digest = f"{number:064x}"
    match number % 4:
        case 0:
            return Enrolment(
                **about, ak_sha256=digest, ek_root="vendor", mode="approve", state="pending"
            )
        case 1:
            return Verdict(
                **about,
                node_name="n1",
                verdict="trusted",
                state="trusted",
                evidence_sha256=digest,
            )
        case 2:
            return CertificateIssued(
                **about,
                node_name="n1",
                serial=f"{number:x}",
                certificate_sha256=digest,
                spki_sha256=digest,
                not_after=NOON + timedelta(minutes=10),
            )
        case _:
            return Denial(
                **about, request="attest", code="stale", message="too late", request_sha256=digest
            )


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by relative path."""
    return {
        (Path(parent) / name).relative_to(folder).as_posix(): (Path(parent) / name).read_bytes()
        for parent, _, names in os.walk(folder)
        for name in names
    }
