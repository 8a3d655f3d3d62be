"""NV indices that extend like a PCR: defined, opened and sealed once a boot, then extended.

``TPM_NT_EXTEND`` (Part 1, 37.2.6; Part 3, 31.8): an index holds one value, in its name algorithm,
SHA-256: ``new = SHA-256(old ‖ data)``, from zeros. What its policy is, and why an index that was
undefined cannot come back in the same boot, is told in ``formats.recordindex``; here a space says
which policy digests to reach. Steps of ``seal_spaces``, each done only if it was not done before,
so that they can be taken up after a crash between any two:

1. define the index, if it does not exist;
2. make its first write, while the PCR is in its reset state;
3. when all are written, extend the PCR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE, TPMA_NV, TPMA_SESSION
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.types import (
    TPM2B_NV_PUBLIC,
    TPML_DIGEST,
    TPMS_NV_PUBLIC,
    TPMT_SYM_DEF,
)

from catena.errors import Refusal, Unavailable
from catena.ids import HashAlg
from catena.tpm.device import DEFAULT_TCTI, Tpm, connected
from catena.tpm.failure import RC_NV_UNINITIALIZED, TpmFailed, command
from catena.tpm.loaded import flushed, nv_indices, released, selection
from catena.tpm.wire import unmarshal

_BANK = HashAlg.SHA256


class NvIndexTaken(Unavailable):
    """The NV index exists and is something else than an index for a record."""

    code = "nv-index-taken"
    remedy = "Choose another NV index, or undefine this one if nothing needs it."


class SealPcrUsed(Unavailable):
    """The PCR that seals NV indices was extended by something else, or for other indices."""

    code = "nv-seal-pcr-used"
    remedy = (
        "Choose a PCR that nothing else extends, name the same indices in every gate.toml, "
        "and boot the node again."
    )


class NvIndexLost(Refusal):
    """An NV index was undefined since it was sealed, and whatever it held is gone."""

    code = "nv-index-lost"
    remedy = "Somebody with the owner authorisation removed it. Find out who; boot the node again."


@dataclass(frozen=True, slots=True)
class NvSpace:
    """An index to define. ``public`` is its TPMS_NV_PUBLIC before the first write, ``first`` and
    ``later`` the digests of its policy's branches, ``opening`` what the first write extends.
    """

    index: int
    public: bytes
    first: bytes
    later: bytes
    opening: bytes


class NvExtender:
    """One NV index that was opened and sealed; made by ``open_nv``."""

    def __init__(self, esys: ESAPI, handle: ESYS_TR, space: NvSpace) -> None:
        self._esys = esys
        self._handle = handle
        self._space = space

    def banks(self) -> tuple[HashAlg, ...]:
        """The one hash that the index extends with."""
        return (_BANK,)

    def read(self, bank: HashAlg) -> bytes:
        """The value now. Raises ``NvIndexLost``."""
        with _still_there(self._space.index), command("TPM2_NV_Read"):
            return bytes(self._esys.nv_read(self._handle, bank.size, auth_handle=self._handle))

    def extend(self, digests: Mapping[HashAlg, bytes]) -> None:
        """TPM2_NV_Extend with the digest of the index's hash. Raises ``NvIndexLost``."""
        with _still_there(self._space.index):
            _write(self._esys, self._handle, self._space, digests[_BANK], pcr=None)


def seal_spaces(
    tcti: str, pcr: int, seal: bytes, spaces: Sequence[NvSpace], owner: bytes = b""
) -> None:
    """Open every space and seal them all with ``seal`` in ``pcr``, unless that was done in this boot.

    ``owner`` is the owner authorisation, which only defining needs. For one process at a time.
    Raises ``SealPcrUsed``, ``NvIndexTaken``, ``NvIndexLost``.
    """
    with connected(tcti) as esys:
        tpm = Tpm(esys)
        sealed = _is_sealed(tpm, pcr, seal)
        for space in spaces:
            known = nv_indices(esys, space.index, space.index)
            if sealed and not known:
                raise _lost(space.index)
            handle = _found(esys, space) if known else _defined(esys, space, owner)
            with released(esys, handle):
                if _is_written(esys, handle):
                    continue
                if sealed:
                    raise _lost(space.index)
                _write(esys, handle, space, space.opening, pcr=pcr)
        if not sealed:
            tpm.extend(pcr, {bank: bank.digest(seal) for bank in tpm.banks()})


@contextmanager
def open_nv(tcti: str, space: NvSpace) -> Iterator[NvExtender]:
    """A sealed space to extend, for as long as the ``with`` lasts.

    Raises ``NvIndexLost``, ``NvIndexTaken``.
    """
    with connected(tcti or DEFAULT_TCTI) as esys:
        if not nv_indices(esys, space.index, space.index):
            raise _lost(space.index)
        handle = _found(esys, space)
        with released(esys, handle):
            if not _is_written(esys, handle):
                raise _lost(space.index)
            yield NvExtender(esys, handle, space)


def _is_sealed(tpm: Tpm, pcr: int, seal: bytes) -> bool:
    """Whether ``pcr`` has the seal, in every bank; it has nothing else. Raises ``SealPcrUsed``."""
    found = {bank: tpm.read_pcrs(bank, [pcr])[0] for bank in tpm.banks()}
    if all(value == bytes(bank.size) for bank, value in found.items()):
        return False
    for bank, value in found.items():
        if value != bank.digest(bytes(bank.size) + bank.digest(seal)):
            raise SealPcrUsed(
                f"PCR {pcr} cannot seal NV indices: something else was measured into it",
                got=f"{bank}:{value.hex()}",
            )
    return True


def _defined(esys: ESAPI, space: NvSpace, owner: bytes) -> ESYS_TR:
    public = unmarshal(TPMS_NV_PUBLIC, space.public)
    esys.tr_set_auth(ESYS_TR.OWNER, owner)
    with command("TPM2_NV_DefineSpace"):
        return esys.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=public))


def _found(esys: ESAPI, space: NvSpace) -> ESYS_TR:
    with command("TPM2_NV_ReadPublic"):
        handle = esys.tr_from_tpmpublic(space.index)
        public, _ = esys.nv_read_public(handle)
    found = public.nvPublic
    found.attributes &= ~TPMA_NV.WRITTEN
    if found.marshal() != space.public:
        esys.tr_close(handle)
        raise NvIndexTaken(
            f"NV index {space.index:#010x} is not one for this record",
            expected=space.public.hex(),
            got=found.marshal().hex(),
        )
    return handle


def _is_written(esys: ESAPI, handle: ESYS_TR) -> bool:
    with command("TPM2_NV_ReadPublic"):
        public, _ = esys.nv_read_public(handle)
    return bool(public.nvPublic.attributes & TPMA_NV.WRITTEN)


def _write(esys: ESAPI, handle: ESYS_TR, space: NvSpace, digest: bytes, *, pcr: int | None) -> None:
    """TPM2_NV_Extend under the policy's branch for the first write, which ``pcr`` guards, or a later."""
    with _policy(esys) as session:
        with command("TPM2_PolicyNvWritten"):
            esys.policy_nv_written(session, pcr is None)
        if pcr is not None:
            with command("TPM2_PolicyPCR"):
                esys.policy_pcr(session, None, selection(_BANK, [pcr]))
        with command("TPM2_PolicyOR"):
            esys.policy_or(session, TPML_DIGEST([space.first, space.later]))
        with command("TPM2_NV_Extend"):
            esys.nv_extend(handle, digest, auth_handle=handle, session1=session)


@contextmanager
def _policy(esys: ESAPI) -> Iterator[ESYS_TR]:
    """A policy session for one write. Nothing in it is secret, so it is neither salted nor bound."""
    with command("TPM2_StartAuthSession"):
        session = esys.start_auth_session(
            tpm_key=ESYS_TR.NONE,
            bind=ESYS_TR.NONE,
            session_type=TPM2_SE.POLICY,
            symmetric=TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL),
            auth_hash=TPM2_ALG.SHA256,
        )
    with flushed(esys, session):
        esys.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION)
        yield session


@contextmanager
def _still_there(index: int) -> Iterator[None]:
    """What a TPM answers about an index that is gone, or came back without a value, is a loss."""
    try:
        yield
    except TpmFailed as error:
        if error.error in _GONE:
            raise _lost(index) from error
        raise


_GONE = frozenset({RC_NV_UNINITIALIZED, 0x08B, 0x09D})
"""Not written, TPM_RC_HANDLE, TPM_RC_POLICY_FAIL."""


def _lost(index: int) -> NvIndexLost:
    return NvIndexLost(f"NV index {index:#010x} is not the one that was sealed in this boot")
