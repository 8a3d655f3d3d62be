r"""Evidence: the one structure a node sends and a verifier reads (RFC 9334, "Evidence").

A quote signs 32 bytes of qualifying data. They bind three things to it, so that nothing of
one exchange can be moved into another (TRUST, attestation step 3)::

    qualifyingData = SHA-256("catena/attest/v1" ‖ nonce ‖ SHA-256(SPKI of the CSR, DER)
                             ‖ SHA-256(manifest))
    manifest       = one line "kind size sha256\n" for every log, in the order sent

A container record that an NV index holds has the kind ``containers@0x01800f00`` in that line. No
quote covers such an index: it is certified by the same key over the same qualifying data.

Logs are content-addressed: a log that the server already holds is named in the manifest and
left out of ``logs``.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec

from catena.formats.nodeapi import Audiences, Hex256
from catena.formats.recordindex import MAX_INDICES
from catena.formats.tpm2nv import NV_FIRST, NV_LAST

LogKind = Literal["tcg2", "ima", "containers"]
"""What firmware, IMA and the gate logged; the last is CEL-TLV (``formats.cel``, ``formats.containerlog``)."""

MAX_LOG = 16 * 1024 * 1024
"""Bytes of one log: 100,000 entries of IMA take 12 MB."""

_BINDING = b"catena/attest/v1"

NvIndex = Annotated[int, msgspec.Meta(ge=NV_FIRST, le=NV_LAST)]


class LogEntry(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """One log that explains the quote, or the NV index ``nv_index``."""

    kind: LogKind
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_LOG)]
    sha256: Hex256
    nv_index: NvIndex | None = None


class IndexCertificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an NV index holds, by TPM2_NV_Certify: TPMS_ATTEST and TPMT_SIGNATURE."""

    nv_index: NvIndex
    attest: Annotated[bytes, msgspec.Meta(max_length=2048)]
    signature: Annotated[bytes, msgspec.Meta(max_length=1024)]


IndexCertificates = Annotated[
    tuple[IndexCertificate, ...], msgspec.Meta(min_length=1, max_length=MAX_INDICES)
]


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Body of ``POST /v1/attest``.

    ``quote`` is TPMS_ATTEST, ``signature`` TPMT_SIGNATURE, ``csr`` PKCS#10 DER. ``pcrs`` are
    the values of PCRs 0–15 in ``bank``, in order: *untrusted* until they hash to the quote's
    ``pcrDigest``. ``logs`` maps SHA-256 to content for the logs the server lacks. ``indices``
    is absent where no NV index holds a container record. ``audiences`` are whom the node wants tokens for.
    """

    node_id: Hex256
    nonce: Annotated[bytes, msgspec.Meta(max_length=256)]
    bank: Annotated[str, msgspec.Meta(max_length=16)]
    quote: Annotated[bytes, msgspec.Meta(max_length=2048)]
    signature: Annotated[bytes, msgspec.Meta(max_length=1024)]
    csr: Annotated[bytes, msgspec.Meta(max_length=8192)]
    pcrs: Annotated[
        tuple[Annotated[bytes, msgspec.Meta(max_length=64)], ...],
        msgspec.Meta(min_length=16, max_length=16),
    ]
    manifest: Annotated[tuple[LogEntry, ...], msgspec.Meta(min_length=1, max_length=8)]
    logs: Annotated[dict[str, bytes], msgspec.Meta(max_length=8)] = {}
    indices: IndexCertificates | msgspec.UnsetType = msgspec.UNSET
    audiences: Audiences | msgspec.UnsetType = msgspec.UNSET


def log_entry(kind: LogKind, content: bytes, nv_index: int | None = None) -> LogEntry:
    """The manifest line of one log."""
    sha256 = hashlib.sha256(content).hexdigest()
    return LogEntry(kind=kind, size=len(content), sha256=sha256, nv_index=nv_index)


def manifest_bytes(manifest: tuple[LogEntry, ...]) -> bytes:
    """The manifest as it is hashed; unambiguous because no field can hold an at, space or newline."""
    return "".join(f"{_kind(log)} {log.size} {log.sha256}\n" for log in manifest).encode()


def _kind(log: LogEntry) -> str:
    return log.kind if log.nv_index is None else f"{log.kind}@{log.nv_index:#010x}"


def qualifying_data(nonce: bytes, spki: bytes, manifest: tuple[LogEntry, ...]) -> bytes:
    """What the node gives TPM2_Quote and TPM2_NV_Certify and the server recomputes: 32 bytes.

    ``nonce`` has a fixed length (``appraise.nonce``), ``spki`` is the SubjectPublicKeyInfo
    of the CSR in DER.
    """
    return hashlib.sha256(
        _BINDING
        + nonce
        + hashlib.sha256(spki).digest()
        + hashlib.sha256(manifest_bytes(manifest)).digest()
    ).digest()
