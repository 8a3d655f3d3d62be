r"""TPM 2.0 structures of NV indices (TPM 2.0 Library, Part 2, revision 1.59), and their policies.

==========================  =====================  =============================================
``TPMS_NV_PUBLIC``          13.5                   ``NvPublic``
``TPMS_NV_CERTIFY_INFO``    10.12.8                ``parse_nv_certify_info``
policy digests              Part 3, 23.6, 23.7,    ``policy_nv_written``, ``policy_pcr``,
                            23.20                  ``policy_or``
==========================  =====================  =============================================

Parsing proves shape only; whether an index is the one that it should be, its Name says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag

from catena.formats.reader import Reader
from catena.formats.tpm2 import MAX_NAME, encode_pcr_selection, object_name, sized2b
from catena.ids import HashAlg

TPM_ST_ATTEST_NV = 0x8014
MAX_NV_BUFFER = 2048
"""Bytes of TPM2B_MAX_NV_BUFFER that are read; PC Client TPMs have 768 to 2048."""

NV_FIRST, NV_LAST = 0x01800000, 0x01BFFFFF
"""NV indices of the owner (TCG Registry of Reserved TPM 2.0 Handles and Localities, 2.2.2)."""

_CC_POLICY_OR = 0x0171
_CC_POLICY_PCR = 0x017F
_CC_POLICY_NV_WRITTEN = 0x018F


class TpmaNv(IntFlag):
    """TPMA_NV (Part 2, 13.4), as far as it is used here; bits 4 to 7 are the type, TPM_NT."""

    POLICY_WRITE = 1 << 3
    NT_EXTEND = 4 << 4
    AUTH_READ = 1 << 18
    OWNER_READ = 1 << 17
    NO_DA = 1 << 25
    ORDERLY = 1 << 26
    CLEAR_STCLEAR = 1 << 27
    WRITTEN = 1 << 29


@dataclass(frozen=True, slots=True)
class NvPublic:
    """TPMS_NV_PUBLIC; ``size`` is the data's, in bytes."""

    index: int
    name_alg: HashAlg
    attributes: TpmaNv
    auth_policy: bytes
    size: int

    def encode(self) -> bytes:
        """As it travels, and as its Name is a hash of."""
        head = self.index.to_bytes(4, "big") + self.name_alg.tpm_id.to_bytes(2, "big")
        policy = sized2b(self.auth_policy)
        return head + self.attributes.to_bytes(4, "big") + policy + self.size.to_bytes(2, "big")

    def name(self) -> bytes:
        """The Name: nameAlg ‖ H(TPMS_NV_PUBLIC) (Part 1, clause 16)."""
        return object_name(self.name_alg, self.encode())


@dataclass(frozen=True, slots=True)
class NvCertifyInfo:
    """What TPM2_NV_Certify says: ``contents`` from ``offset`` on, of the index with this Name."""

    name: bytes
    offset: int
    contents: bytes


def parse_nv_certify_info(data: bytes) -> NvCertifyInfo:
    """Read a TPMS_NV_CERTIFY_INFO, the ``body`` of a TPMS_ATTEST. Raises ``FormatError``."""
    reader = Reader(data, order="big")
    name = reader.sized(2, MAX_NAME, "indexName")
    offset = reader.uint(2, "offset")
    contents = reader.sized(2, MAX_NV_BUFFER, "nvContents")
    reader.done("TPMS_NV_CERTIFY_INFO")
    return NvCertifyInfo(name, offset, contents)


NO_POLICY = bytes(32)
"""The policyDigest of a session that has just begun; all policies here are in SHA-256."""


def policy_nv_written(policy: bytes, *, written: bool) -> bytes:
    """The policyDigest after TPM2_PolicyNvWritten (Part 3, 23.20)."""
    return _sha256(policy + _command(_CC_POLICY_NV_WRITTEN) + bytes([written]))


def policy_pcr(policy: bytes, pcr: int, value: bytes) -> bytes:
    """The policyDigest after TPM2_PolicyPCR over one PCR of the SHA-256 bank (Part 3, 23.7)."""
    selection = encode_pcr_selection(HashAlg.SHA256, [pcr])
    return _sha256(policy + _command(_CC_POLICY_PCR) + selection + _sha256(value))


def policy_or(branches: Iterable[bytes]) -> bytes:
    """The policyDigest after TPM2_PolicyOR (Part 3, 23.6): that of any branch becomes this."""
    return _sha256(NO_POLICY + _command(_CC_POLICY_OR) + b"".join(branches))


def _command(code: int) -> bytes:
    return code.to_bytes(4, "big")


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
