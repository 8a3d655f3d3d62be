"""The NV index that holds a container record: what node and trust service both must know of it.

An index of type ``TPM_NT_EXTEND`` is a hash chain like a PCR, but whoever has the owner
authorisation may undefine it and define it again, which would begin the chain anew within one boot.
So its Name, which no other index can have, includes this policy for writing::

    first write   only while it is unwritten and PCR ``pcr`` (SHA-256) is in its reset state
    later writes  only while it is written

The node makes the first write and then extends ``pcr`` once: it *seals* the indices. From there
to the next boot an index that was defined again has no first write, so no value, and no
certificate: what was recorded can be lost, which shows, and never be replaced. ``pcr`` is quoted, and
its value says which indices were sealed, so that none can be kept from the trust service either.

At a reset of the TPM the index becomes unwritten (``TPMA_NV_CLEAR_STCLEAR``) as the PCR returns to
zeros. ``TPMA_NV_ORDERLY`` keeps the value in RAM: extending wears nothing out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catena.formats.tpm2nv import (
    NO_POLICY,
    NvPublic,
    TpmaNv,
    policy_nv_written,
    policy_or,
    policy_pcr,
)
from catena.ids import HashAlg

BANK = HashAlg.SHA256
"""The one hash of an index, of its policy and of the PCR that seals it."""
MAX_INDICES = 4
"""Indices of one node; each tenant has one."""

ATTRIBUTES = (
    TpmaNv.POLICY_WRITE
    | TpmaNv.AUTH_READ
    | TpmaNv.OWNER_READ
    | TpmaNv.NO_DA
    | TpmaNv.ORDERLY
    | TpmaNv.CLEAR_STCLEAR
    | TpmaNv.NT_EXTEND
)
_RESET = bytes(BANK.size)


@dataclass(frozen=True, slots=True)
class RecordIndex:
    """One index, sealed by ``pcr``. ``first`` and ``later`` are the branches of its policy."""

    index: int
    pcr: int

    @property
    def first(self) -> bytes:
        """The policyDigest that the first write needs."""
        return policy_pcr(policy_nv_written(NO_POLICY, written=False), self.pcr, _RESET)

    @property
    def later(self) -> bytes:
        """The policyDigest that every later write needs."""
        return policy_nv_written(NO_POLICY, written=True)

    def public(self, *, written: bool) -> NvPublic:
        """Its public area; ``TPMA_NV_WRITTEN`` is part of it, and of its Name."""
        attributes = ATTRIBUTES | TpmaNv.WRITTEN if written else ATTRIBUTES
        policy = policy_or((self.first, self.later))
        return NvPublic(self.index, BANK, attributes, policy, BANK.size)

    @property
    def opening(self) -> bytes:
        """The digest that the first write extends."""
        return BANK.digest(f"catena/container-index/v1 {self}".encode())

    @property
    def base(self) -> bytes:
        """The value that every record in it begins with."""
        return BANK.digest(_RESET + self.opening)

    def __str__(self) -> str:
        return f"NV index {self.index:#010x}"


def seal_event(indices: Sequence[int]) -> bytes:
    """What is hashed and extended into ``pcr`` once all ``indices`` are open; order counts."""
    names = " ".join(f"{index:#010x}" for index in indices)
    return f"catena/container-indices/v1 {names}".encode()
