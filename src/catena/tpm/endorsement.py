"""The EK certificates that a TPM vendor left in NV memory.

TCG EK Credential Profile for TPM 2.0, version 2.5, section 2.2.1.4 and 2.2.1.5:

=========================  ==================================================
0x01C00002 – 0x01C0001E    X.509 DER certificates of EKs (``kinds``)
0x01C00100 – 0x01C001FF    certificates above it, DER, one after the other and
                           possibly split across indices
=========================  ==================================================

Vendors pad indices with 0x00 or 0xFF: the DER length field says where a certificate ends.
Nothing is judged here; the server does that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import suppress

from tpm2_pytss.constants import TPM2_CAP, TPM2_PT_NV
from tpm2_pytss.ESAPI import ESAPI

from catena.tpm.failure import TpmFailed, command
from catena.tpm.kinds import KeyKind
from catena.tpm.loaded import nv_indices, released

CHAIN_FIRST = 0x01C00100
CHAIN_LAST = 0x01C001FF

MAX_CHAIN = 32 * 1024
MAX_CERTIFICATES = 8
_DER_SEQUENCE = 0x30
_DER_LONG_FORM = 0x80
_MAX_LENGTH_BYTES = 3
_NV_CHUNK_LIMIT = 1024


def certified_kind(esys: ESAPI) -> KeyKind | None:
    """The first kind of EK, in the order of ``KeyKind``, whose certificate is in this TPM."""
    return next((kind for kind in KeyKind if _is_certified(esys, kind)), None)


def _is_certified(esys: ESAPI, kind: KeyKind) -> bool:
    return kind.certificate in nv_indices(esys, kind.certificate, kind.certificate)


def certificates(esys: ESAPI, kind: KeyKind) -> tuple[bytes, ...]:
    """DER certificates, the one of this EK first; empty when the vendor stored none."""
    if not _is_certified(esys, kind):
        return ()
    leaf = list(split_der(_read(esys, kind.certificate)))[:1]
    above = itertools.islice(chain(_chain_contents(esys)), MAX_CERTIFICATES - 1)
    return (*leaf, *above)


def _chain_contents(esys: ESAPI) -> Iterator[bytes]:
    """What the chain's indices hold; one that cannot be read is left out, and helps nothing."""
    left = MAX_CHAIN
    for index in nv_indices(esys, CHAIN_FIRST, CHAIN_LAST):
        with suppress(TpmFailed):
            content = _read(esys, index)
            left -= len(content)
            if left < 0:
                return
            yield content


def chain(contents: Iterable[bytes]) -> Iterator[bytes]:
    """The certificates in a row of indices: several in one, or one across several.

    What follows the last whole one in an index either goes on in the next, or is padding.
    """
    begun = b""
    for content in contents:
        data = begun + content
        whole = tuple(split_der(data))
        yield from whole
        rest = data[sum(map(len, whole)) :]
        begun = rest if rest[:1] == bytes([_DER_SEQUENCE]) else b""


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
