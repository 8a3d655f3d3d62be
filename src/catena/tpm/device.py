"""One TPM 2.0, opened: its keys, its PCRs, its quotes, and what only it can open.

Everything crosses this boundary as the bytes that travel on the wire (TPMT_PUBLIC,
TPMS_ATTEST, TPMT_SIGNATURE, TPM2B_*), so that callers need no TPM library to read them.
A ``Tpm`` is for one thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPMA_SESSION
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.TSS2_Exception import TSS2_Exception
from tpm2_pytss.types import (
    TPM2B_DATA,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPML_DIGEST_VALUES,
    TPMS_ATTEST,
    TPMT_HA,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF_OBJECT,
    TPMU_HA,
)

from catena.ids import HashAlg, hash_alg_from_tpm_id
from catena.tpm import endorsement
from catena.tpm.failure import (
    RC_FAILURE,
    RC_INTEGRITY,
    RC_NV_UNINITIALIZED,
    RC_PCR_CHANGED,
    RC_POLICY_FAIL,
    RC_SIZE,
    RC_VALUE,
    BankMissing,
    ForeignSeal,
    PcrPolicyUnmet,
    TpmFailed,
    TpmUnavailable,
    UnsteadyPcrs,
    command,
)
from catena.tpm.kinds import KeyKind, NodeKeys
from catena.tpm.loaded import (
    ek_authorisation,
    flushed,
    nv_indices,
    primary,
    released,
    salted_policy,
    selection,
)
from catena.tpm.templates import ak_template, ek_template
from catena.tpm.wire import unmarshal

NODE_KEYS = NodeKeys()
DEFAULT_TCTI = "device:/dev/tpmrm0"

_PCRS_PER_READ = 8
"""TPML_DIGEST holds eight (Part 2, 10.9.5)."""

_ATTEMPTS = 5
_SEED_REFUSED = frozenset({RC_FAILURE, RC_VALUE, RC_SIZE, RC_INTEGRITY})
"""How TPMs answer a seed or blob that their EK does not open. ``TPM_RC_FAILURE`` is what the
reference code says when OAEP does not decode; a TPM that is really in failure mode would not
have loaded the EK a moment before."""


@dataclass(frozen=True, slots=True)
class PcrQuote:
    """A quote and the PCR values that it covers, in the order asked for."""

    attest: bytes
    signature: bytes
    values: tuple[bytes, ...]


class Tpm:
    """An open TPM; made by ``open_tpm``."""

    def __init__(self, esys: ESAPI, keys: NodeKeys = NODE_KEYS) -> None:
        self._esys = esys
        self._keys = keys

    @cached_property
    def ek_kind(self) -> KeyKind:
        """The endorsement key that is used: the one asked for, or that the vendor certified."""
        chosen = self._keys.endorsement
        return chosen or endorsement.certified_kind(self._esys) or KeyKind.RSA_2048

    @property
    def _ek_template(self) -> TPM2B_PUBLIC:
        return ek_template(self.ek_kind, self._keys.individual)

    @property
    def _ak_template(self) -> TPM2B_PUBLIC:
        return ak_template(self._keys.attestation, self._keys.individual)

    def ek_public(self) -> bytes:
        """TPMT_PUBLIC of the endorsement key."""
        return self._public(self._ek_template)

    def ak_public(self) -> bytes:
        """TPMT_PUBLIC of the attestation key."""
        return self._public(self._ak_template)

    def ek_certificates(self) -> tuple[bytes, ...]:
        """DER certificates for the EK that the vendor stored, leaf first; may be empty."""
        return endorsement.certificates(self._esys, self.ek_kind)

    def banks(self) -> tuple[HashAlg, ...]:
        """Allocated PCR banks, as far as catena knows their hash."""
        with command("TPM2_GetCapability"):
            _, capability = self._esys.get_capability(TPM2_CAP.PCRS, 0, 16)
        allocated = (
            hash_alg_from_tpm_id(int(bank.hash))
            for bank in capability.data.assignedPCR
            if any(bank.pcrSelect)
        )
        return tuple(bank for bank in allocated if bank is not None)

    def read_pcrs(self, bank: HashAlg, pcrs: Sequence[int]) -> tuple[bytes, ...]:
        """Values of ``pcrs`` (ascending), not vouched for by anything; see ``quote_pcrs``."""
        values: list[bytes] = []
        for start in range(0, len(pcrs), _PCRS_PER_READ):
            some = pcrs[start : start + _PCRS_PER_READ]
            with command("TPM2_PCR_Read"):
                _, _, digests = self._esys.pcr_read(selection(bank, some))
            if len(digests) != len(some):
                raise BankMissing("the TPM has no such PCR bank", got=bank.value)
            values.extend(bytes(digest) for digest in digests)
        return tuple(values)

    def quote(self, qualifying: bytes, bank: HashAlg, pcrs: Sequence[int]) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE of a quote by the attestation key."""
        with primary(self._esys, self._ak_template) as (key, _), command("TPM2_Quote"):
            attest, signature = self._esys.quote(
                key, selection(bank, pcrs), TPM2B_DATA(buffer=qualifying)
            )
        return bytes(attest), signature.marshal()

    def quote_pcrs(self, qualifying: bytes, bank: HashAlg, pcrs: Sequence[int]) -> PcrQuote:
        """A quote together with the values it covers.

        PCRs may be extended between reading and quoting; then both are done again. Raises
        ``UnsteadyPcrs`` when that does not end.
        """
        for _ in range(_ATTEMPTS):
            values = self.read_pcrs(bank, pcrs)
            attest, signature = self.quote(qualifying, bank, pcrs)
            if _quoted_digest(attest) == self._keys.attestation.hash.digest(b"".join(values)):
                return PcrQuote(attest=attest, signature=signature, values=values)
        raise UnsteadyPcrs("PCRs changed during every quote", got=f"{_ATTEMPTS} attempts")

    def certify_nv(self, index: int, qualifying: bytes) -> tuple[bytes, bytes] | None:
        """TPMS_ATTEST and TPMT_SIGNATURE of an NV index of 32 bytes by the attestation key.

        None if there is no such index, or nothing was written into it since the boot.
        """
        if not nv_indices(self._esys, index, index):
            return None
        with command("TPM2_NV_ReadPublic"):
            handle = self._esys.tr_from_tpmpublic(index)
        with released(self._esys, handle), primary(self._esys, self._ak_template) as (key, _):
            try:
                with command("TPM2_NV_Certify"):
                    attest, signature = self._esys.nv_certify(
                        key,
                        handle,
                        TPM2B_DATA(buffer=qualifying),
                        TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL),
                        HashAlg.SHA256.size,
                        auth_handle=handle,
                    )
            except TpmFailed as error:
                if error.error == RC_NV_UNINITIALIZED:
                    return None
                raise
        return bytes(attest), signature.marshal()

    def extend(self, pcr: int, digests: Mapping[HashAlg, bytes]) -> None:
        """Extend ``pcr`` with one digest per bank."""
        values = TPML_DIGEST_VALUES(
            [
                TPMT_HA(hashAlg=TPM2_ALG(bank.tpm_id), digest=TPMU_HA(**{bank.value: value}))
                for bank, value in digests.items()
            ]
        )
        with command("TPM2_PCR_Extend"):
            self._esys.pcr_extend(ESYS_TR(pcr), values)

    def activate_credential(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """TPM2_ActivateCredential for the attestation key: the secret made for this EK and AK.

        Takes marshalled TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET. Raises ``ForeignSeal`` when
        the challenge was made for another EK or AK.
        """
        blob = unmarshal(TPM2B_ID_OBJECT, credential_blob)
        seed = unmarshal(TPM2B_ENCRYPTED_SECRET, encrypted_secret)
        with (
            primary(self._esys, self._ek_template) as (ek, _),
            primary(self._esys, self._ak_template) as (ak, _),
            ek_authorisation(self._esys, ek, self.ek_kind) as session,
            _foreign_seal("the challenge is for another endorsement or attestation key"),
            command("TPM2_ActivateCredential"),
        ):
            return bytes(
                self._esys.activate_credential(
                    ak, ek, blob, seed, session1=ESYS_TR.PASSWORD, session2=session
                )
            )

    def unseal(
        self, *, public: bytes, duplicate: bytes, seed: bytes, bank: HashAlg, pcrs: Sequence[int]
    ) -> bytes:
        """Import an object sealed to this EK and unseal it under the PCR values of now.

        Takes marshalled TPM2B_PUBLIC, TPM2B_PRIVATE and TPM2B_ENCRYPTED_SECRET. Raises
        ``ForeignSeal`` (other TPM, or altered) or ``PcrPolicyUnmet`` (other boot state).
        """
        sealed = unmarshal(TPM2B_PUBLIC, public)
        wrapped = unmarshal(TPM2B_PRIVATE, duplicate)
        secret = unmarshal(TPM2B_ENCRYPTED_SECRET, seed)
        with primary(self._esys, self._ek_template) as (ek, _):
            private = self._import(ek, sealed, wrapped, secret)
            with ek_authorisation(self._esys, ek, self.ek_kind) as session, command("TPM2_Load"):
                item = self._esys.load(ek, private, sealed, session1=session)
            with flushed(self._esys, item):
                return self._unseal(ek, item, bank, pcrs)

    def _import(
        self,
        ek: ESYS_TR,
        sealed: TPM2B_PUBLIC,
        wrapped: TPM2B_PRIVATE,
        seed: TPM2B_ENCRYPTED_SECRET,
    ) -> TPM2B_PRIVATE:
        with (
            ek_authorisation(self._esys, ek, self.ek_kind) as session,
            _foreign_seal("the sealed object is for another TPM, or altered"),
            command("TPM2_Import"),
        ):
            return self._esys.import_(
                ek,
                TPM2B_DATA(),
                sealed,
                wrapped,
                seed,
                TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL),
                session1=session,
            )

    def _unseal(self, ek: ESYS_TR, item: ESYS_TR, bank: HashAlg, pcrs: Sequence[int]) -> bytes:
        """Satisfy the policy and unseal; again if any PCR was extended in between."""
        for _ in range(_ATTEMPTS):
            try:
                return self._try_unseal(ek, item, bank, pcrs)
            except TpmFailed as error:
                if error.error == RC_POLICY_FAIL:
                    raise PcrPolicyUnmet("the PCRs differ from those sealed to") from error
                if error.error != RC_PCR_CHANGED:
                    raise
        raise UnsteadyPcrs("PCRs changed during every unseal", got=f"{_ATTEMPTS} attempts")

    def _try_unseal(self, ek: ESYS_TR, item: ESYS_TR, bank: HashAlg, pcrs: Sequence[int]) -> bytes:
        with salted_policy(self._esys, ek, encrypts=TPMA_SESSION.ENCRYPT) as session:
            with command("TPM2_PolicyPCR"):
                self._esys.policy_pcr(session, None, selection(bank, pcrs))
            with command("TPM2_Unseal"):
                return bytes(self._esys.unseal(item, session1=session))

    def _public(self, template: TPM2B_PUBLIC) -> bytes:
        with primary(self._esys, template) as (_, public):
            marshalled: bytes = public.publicArea.marshal()
            return marshalled


@contextmanager
def open_tpm(tcti: str = DEFAULT_TCTI, keys: NodeKeys = NODE_KEYS) -> Iterator[Tpm]:
    """Open the TPM behind a TCTI string: ``device:/dev/tpmrm0``, ``swtpm:port=2321``."""
    with connected(tcti) as esys:
        yield Tpm(esys, keys)


@contextmanager
def connected(tcti: str) -> Iterator[ESAPI]:
    """A connection to the TPM behind a TCTI string. Raises ``TpmUnavailable``."""
    # Failures reach the reader as errors; the library would print them a second time.
    os.environ.setdefault("TSS2_LOG", "all+NONE")
    try:
        esys = ESAPI(tcti)
    except TSS2_Exception as error:
        raise TpmUnavailable("cannot open the TPM", expected=tcti[:128], got=str(error)) from error
    try:
        yield esys
    finally:
        esys.close()


@contextmanager
def _foreign_seal(message: str) -> Iterator[None]:
    try:
        yield
    except TpmFailed as error:
        if error.error in _SEED_REFUSED:
            raise ForeignSeal(message) from error
        raise


def _quoted_digest(attest: bytes) -> bytes:
    structure = unmarshal(TPMS_ATTEST, attest)
    return bytes(structure.attested.quote.pcrDigest)
