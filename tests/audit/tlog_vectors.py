"""The transparency-log corpus as tables: which files nothing here reads, and why; and where the
verdict differs from the publisher's on purpose. ``test_tlog_vectors`` judges all others.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/tlog"

_CT = "Certificate Transparency's own leaves and signatures, not those of tlog-tiles"
_SIGNED = "content that was signed, or one part of a bundle on its own"
_PROPOSAL = "a proposal sent to Rekor; what Rekor answers is read by `formats.rekor`"

NOT_READ: dict[str, str] = {
    "C2SP+C2SP/det-keygen/*.json": "keys derived from seeds: every key here is random",
    "FiloSottile+sunlight/testdata/*/tile/names/*": _CT,
    "FiloSottile+sunlight/testdata/*/tile/data/*": _CT,
    "FiloSottile+sunlight/cmd/skylight/testdata/tree/issuer/*": _CT,
    "FiloSottile+sunlight/cmd/skylight/testdata/tree/log.v3.json": _CT,
    "FiloSottile+sunlight/cmd/skylight/testdata/skylight.yaml": "configuration of another server",
    "FiloSottile+sunlight/cmd/skylight/testdata/witness/checkpoint": "a decoy for a web server",
    "FiloSottile+sunlight/cmd/skylight/testdata/witness/mirror/checkpoint": "as the other decoy",
    "google+certificate-transparency-go/testdata/*": _CT,
    "google+trillian/integration/format/testdata/*": "a text dump of Trillian's database",
    "sigstore+rekor-tiles/tests/testdata/witness/private.key": (
        "a private key in Go's note format: private keys here are PKCS#8"
    ),
    "sigstore+rekor/pkg/generated/models/testdata/*.json": _PROPOSAL,
    "sigstore+sigstore-python/test/assets/*.txt": _SIGNED,
    "sigstore+sigstore-python/test/assets/*.whl": _SIGNED,
    "sigstore+sigstore-python/test/assets/*.crt": _SIGNED,
    "sigstore+sigstore-python/test/assets/*.sig": _SIGNED,
    "sigstore+sigstore-python/test/assets/signing_config/*": "where Sigstore's clients sign",
    "sigstore+sigstore-python/test/assets/trusted_root/*": (
        "Sigstore's list of roots: catena's policies name certificates themselves"
    ),
    "transparency-dev+tessera/testdata/log/.state/version": "one digit for Tessera's own use",
}
"""Files for which there is no reader, by pattern, and why none is needed."""

SUBTREES = "a proof within a subtree that does not begin at leaf 0: nothing here has subtrees"

DIFFERENCES: dict[str, str] = {
    "transparency-dev+merkle/testdata/subtreeconsistency/additional/"
    "subtree-is-empty-sizes-are-equal-zero-subtree-root-valid-tree-root-random-proof-is-empty.json": (
        "an empty tree proves nothing about any other: no proof from it is taken for one"
    ),
    "FiloSottile+torchwood/derived/litewitness.json#1": (
        "base64 with loose bits is malformed (400), not a signature to be looked at (403)"
    ),
    "FiloSottile+torchwood/derived/litewitness.json#2": (
        "an unknown origin is 404, as the specification says since; the vector has 403"
    ),
    "sigstore+rekor-tiles/tests/testdata/witness/policy.yaml": (
        "a witness's key must be of kind 0x04, which cosigns; this one signs notes (0x01)"
    ),
}
"""Where the verdict here is another one than the publisher's, on purpose (ADR 0017)."""


@dataclass(frozen=True, slots=True)
class Vector:
    """One file: its path below the corpus and the verdict that its publisher expects."""

    name: str
    expected: str

    @property
    def path(self) -> Path:
        return CORPUS / self.name


def manifest() -> tuple[Vector, ...]:
    lines = (CORPUS / "MANIFEST.tsv").read_text().splitlines()[1:]
    return tuple(Vector(cells[0], cells[6]) for cells in (line.split("\t") for line in lines))


def not_read(name: str) -> str | None:
    """Why nothing here reads this file; None if something does."""
    return next((why for glob, why in NOT_READ.items() if fnmatch.fnmatchcase(name, glob)), None)
