"""The EK certificates that a TPM vendor left in NV memory.

TCG EK Credential Profile for TPM 2.0, version 2.3, section 2.2.1.4 and 2.2.1.5:

=========================  ==================================================
0x01C00002                 X.509 DER certificate of the RSA-2048 EK (L-1)
0x01C00100 – 0x01C001FF    certificates above it, DER, one after the other and
                           possibly split across indices
=========================  ==================================================

Vendors pad indices with 0x00 or 0xFF: the DER length field says where a certificate ends.
Nothing is judged here; the server does that.
"""

from __future__ import annotations

from collections.abc import Iterator

from tpm2_pytss.constants import TPM2_CAP, TPM2_PT_NV
from tpm2_pytss.ESAPI import ESAPI

from catena.tpm.failure import command
from catena.tpm.loaded import nv_indices, released

EK_CERTIFICATE = 0x01C00002
CHAIN_FIRST = 0x01C00100
CHAIN_LAST = 0x01C001FF

MAX_CHAIN = 32 * 1024
MAX_CERTIFICATES = 8
_DER_SEQUENCE = 0x30
_DER_LONG_FORM = 0x80
_MAX_LENGTH_BYTES = 3
_NV_CHUNK_LIMIT = 1024


def certificates(esys: ESAPI) -> tuple[bytes, ...]:
    """DER certificates, the EK's own first; empty when the vendor stored none."""
    if EK_CERTIFICATE not in nv_indices(esys, EK_CERTIFICATE, EK_CERTIFICATE):
        return ()
    chain = b"".join(_read(esys, index) for index in nv_indices(esys, CHAIN_FIRST, CHAIN_LAST))
    leaf = list(split_der(_read(esys, EK_CERTIFICATE)))[:1]
    return (*leaf, *split_der(chain[:MAX_CHAIN]))[:MAX_CERTIFICATES]


def split_der(data: bytes) -> Iterator[bytes]:
    """The DER SEQUENCEs that ``data`` begins with; stops at padding or at a truncated one."""
    while (size := _der_size(data)) is not None and size <= len(data):
        yield data[:size]
        data = data[size:]


def _der_size(data: bytes) -> int | None:
    if len(data) < 2 or data[0] != _DER_SEQUENCE:
        return None
    first = data[1]
    if first < _DER_LONG_FORM:
        return 2 + first
    count = first - _DER_LONG_FORM
    if not 1 <= count <= _MAX_LENGTH_BYTES or len(data) < 2 + count:
        return None
    return 2 + count + int.from_bytes(data[2 : 2 + count], "big")


def _read(esys: ESAPI, index: int) -> bytes:
    with command("TPM2_NV_ReadPublic"):
        handle = esys.tr_from_tpmpublic(index)
    with released(esys, handle), command("TPM2_NV_Read"):
        public, _ = esys.nv_read_public(handle)
        size, chunk = public.nvPublic.dataSize, _chunk_size(esys)
        return b"".join(
            bytes(esys.nv_read(handle, min(chunk, size - offset), offset, auth_handle=handle))
            for offset in range(0, size, chunk)
        )


def _chunk_size(esys: ESAPI) -> int:
    """TPM_PT_NV_BUFFER_MAX: how much one TPM2_NV_Read returns."""
    _, capability = esys.get_capability(TPM2_CAP.TPM_PROPERTIES, TPM2_PT_NV.BUFFER_MAX, 1)
    return min(int(capability.data.tpmProperties[0].value), _NV_CHUNK_LIMIT)
