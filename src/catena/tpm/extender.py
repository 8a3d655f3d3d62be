"""One PCR, or one NV index that extends like a PCR, kept open to be extended many times.

The connection is opened and the banks are found once; an extend is then one command for all
banks, so that none of them can be made to tell another story. An extender is for one thread
at a time. A TPM without a resource manager serves only one connection, this one.

**An NV index** of type ``TPM_NT_EXTEND`` (Part 1, 37.2.6; Part 3, 31.8) holds one value, in its
name algorithm, SHA-256: ``new = SHA-256(old ‖ data)``, from zeros. ``TPMA_NV_CLEAR_STCLEAR`` makes
it begin again at every boot, ``TPMA_NV_ORDERLY`` keeps it in RAM, where extending wears nothing out.
No quote covers it. A verifier needs what ``certify`` gives, has to check the index's Name in it,
which covers these attributes, and has to know who holds the owner authorisation: that one may
undefine the index and define it again, which begins at zeros in the same boot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_NT, TPMA_NV
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import (
    TPM2B_DATA,
    TPM2B_NV_PUBLIC,
    TPMS_NV_PUBLIC,
    TPMT_SIG_SCHEME,
)

from catena.errors import Unavailable, UsageError
from catena.ids import HashAlg
from catena.tpm.device import DEFAULT_TCTI, Tpm, connected
from catena.tpm.failure import RC_NV_UNINITIALIZED, TpmFailed, command
from catena.tpm.loaded import nv_indices, primary, released
from catena.tpm.templates import ak_template

NV_FIRST, NV_LAST = 0x01800000, 0x01BFFFFF
"""NV indices of the owner (TCG Registry of Reserved TPM 2.0 Handles and Localities, 2.2.2)."""

NV_ATTRIBUTES = (
    TPMA_NV.AUTHREAD
    | TPMA_NV.AUTHWRITE
    | TPMA_NV.OWNERREAD
    | TPMA_NV.NO_DA
    | TPMA_NV.ORDERLY
    | TPMA_NV.CLEAR_STCLEAR
    | TPM2_NT.EXTEND << TPMA_NV.TPM2_NT_SHIFT
)
_NV_BANK = HashAlg.SHA256


class NvIndexOutOfRange(UsageError):
    """An NV index that is not the owner's to define."""

    code = "nv-index-out-of-range"
    remedy = "Choose an NV index from 0x01800000 to 0x01BFFFFF."


class NvIndexTaken(Unavailable):
    """The NV index exists and is something else than an index for a record."""

    code = "nv-index-taken"
    remedy = "Choose another NV index, or undefine this one if nothing needs it."


class PcrExtender:
    """One PCR in every bank; made by ``open_pcr``."""

    def __init__(self, tpm: Tpm, pcr: int) -> None:
        self.pcr = pcr
        self._tpm = tpm
        self._banks = tpm.banks()

    def banks(self) -> tuple[HashAlg, ...]:
        """The active banks, as far as catena knows their hash."""
        return self._banks

    def read(self, bank: HashAlg) -> bytes:
        """The PCR's value now."""
        return self._tpm.read_pcrs(bank, [self.pcr])[0]

    def extend(self, digests: Mapping[HashAlg, bytes]) -> None:
        """TPM2_PCR_Extend with one digest for each bank."""
        self._tpm.extend(self.pcr, digests)


class NvExtender:
    """One NV index, defined and checked; made by ``open_nv``."""

    def __init__(self, esys: ESAPI, handle: ESYS_TR) -> None:
        self._esys = esys
        self._handle = handle

    def banks(self) -> tuple[HashAlg, ...]:
        """The one hash that the index extends with."""
        return (_NV_BANK,)

    def read(self, bank: HashAlg) -> bytes:
        """The value now; zeros before anything was extended in this boot."""
        try:
            with command("TPM2_NV_Read"):
                return bytes(self._esys.nv_read(self._handle, bank.size, auth_handle=self._handle))
        except TpmFailed as error:
            if error.error == RC_NV_UNINITIALIZED:
                return bytes(bank.size)
            raise

    def extend(self, digests: Mapping[HashAlg, bytes]) -> None:
        """TPM2_NV_Extend with the digest of the index's hash."""
        with command("TPM2_NV_Extend"):
            self._esys.nv_extend(self._handle, digests[_NV_BANK], auth_handle=self._handle)

    def certify(self, qualifying: bytes) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE of the index's value by the attestation key.

        Fails with ``TpmFailed`` before anything was extended in this boot.
        """
        with primary(self._esys, ak_template()) as (key, _), command("TPM2_NV_Certify"):
            attest, signature = self._esys.nv_certify(
                key,
                self._handle,
                TPM2B_DATA(buffer=qualifying),
                TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL),
                _NV_BANK.size,
                auth_handle=self._handle,
            )
        return bytes(attest), signature.marshal()


@contextmanager
def open_pcr(tcti: str = DEFAULT_TCTI, pcr: int = 15) -> Iterator[PcrExtender]:
    """A PCR to extend, for as long as the ``with`` lasts."""
    with connected(tcti) as esys:
        yield PcrExtender(Tpm(esys), pcr)


@contextmanager
def open_nv(tcti: str, index: int, owner: bytes = b"") -> Iterator[NvExtender]:
    """An NV index to extend, for as long as the ``with`` lasts; defined if it does not exist.

    ``owner`` is the owner authorisation, which only defining needs. Raises
    ``NvIndexOutOfRange``, ``NvIndexTaken``.
    """
    if not NV_FIRST <= index <= NV_LAST:
        raise NvIndexOutOfRange("no NV index for a record", got=f"0x{index:08x}")
    with connected(tcti) as esys:
        known = nv_indices(esys, index, index)
        handle = _found(esys, index) if known else _defined(esys, index, owner)
        with released(esys, handle):
            yield NvExtender(esys, handle)


def _defined(esys: ESAPI, index: int, owner: bytes) -> ESYS_TR:
    esys.tr_set_auth(ESYS_TR.OWNER, owner)
    with command("TPM2_NV_DefineSpace"):
        return esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=_public(index)))


def _public(index: int) -> TPMS_NV_PUBLIC:
    return TPMS_NV_PUBLIC(
        nvIndex=index,
        nameAlg=TPM2_ALG(_NV_BANK.tpm_id),
        attributes=NV_ATTRIBUTES,
        dataSize=_NV_BANK.size,
    )


def _found(esys: ESAPI, index: int) -> ESYS_TR:
    with command("TPM2_NV_ReadPublic"):
        handle = esys.tr_from_tpmpublic(index)
        public, _ = esys.nv_read_public(handle)
    found = public.nvPublic
    found.attributes &= ~TPMA_NV.WRITTEN
    if found.marshal() != _public(index).marshal():
        esys.tr_close(handle)
        raise NvIndexTaken(
            f"NV index 0x{index:08x} is not one for a record",
            expected=f"attributes 0x{int(NV_ATTRIBUTES):08x}",
            got=f"0x{int(found.attributes):08x}",
        )
    return handle
