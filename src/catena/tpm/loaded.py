"""Things that occupy a slot of the TPM, each as a context manager that gives it back.

A TPM without a resource manager holds three objects and three sessions; one that leaks is
unusable after a few rounds. So nothing here returns a handle that outlives its ``with``.

Sessions are salted with the EK and encrypt parameters with AES-128-CFB (Part 1, 19.6 and 21):
who records the bus sees neither activation secrets nor unsealed keys. An interposer that also
*replaces* messages could swap the salting key; appraisal names that class of attack, nothing
here prevents it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_SE, TPMA_SESSION
from tpm2_pytss.ESAPI import ESAPI
from tpm2_pytss.TSS2_Exception import TSS2_Exception
from tpm2_pytss.types import (
    TPM2B_DIGEST,
    TPM2B_PUBLIC,
    TPML_DIGEST,
    TPML_PCR_SELECTION,
    TPMS_PCR_SELECTION,
    TPMT_SYM_DEF,
    TPMU_SYM_KEY_BITS,
    TPMU_SYM_MODE,
)

from catena.ids import HashAlg
from catena.tpm.failure import command
from catena.tpm.kinds import KeyKind
from catena.tpm.templates import POLICY_A_SHA384, POLICY_C_SHA384


@contextmanager
def primary(esys: ESAPI, template: TPM2B_PUBLIC) -> Iterator[tuple[ESYS_TR, TPM2B_PUBLIC]]:
    """A primary key of the endorsement hierarchy and its public area."""
    with command("TPM2_CreatePrimary"):
        handle, public, *_ = esys.create_primary(None, template, primary_handle=ESYS_TR.ENDORSEMENT)
    with flushed(esys, handle):
        yield handle, public


@contextmanager
def flushed(esys: ESAPI, handle: ESYS_TR) -> Iterator[ESYS_TR]:
    """Flush ``handle`` at the end, whatever happens."""
    try:
        yield handle
    finally:
        # A flush fails only when the TPM or the connection is gone, and the handle with it;
        # the command that noticed has raised, or the next one will.
        with suppress(TSS2_Exception):
            esys.flush_context(handle)


@contextmanager
def released(esys: ESAPI, handle: ESYS_TR) -> Iterator[ESYS_TR]:
    """Forget the library's record of something that stays in the TPM, such as an NV index."""
    try:
        yield handle
    finally:
        esys.tr_close(handle)


@contextmanager
def salted_policy(
    esys: ESAPI, ek: ESYS_TR, *, encrypts: TPMA_SESSION, policy_hash: TPM2_ALG = TPM2_ALG.SHA256
) -> Iterator[ESYS_TR]:
    """A policy session salted with the EK that encrypts the directions in ``encrypts``.

    ``policy_hash`` is the name's hash of what the policy is of.
    """
    with command("TPM2_StartAuthSession"):
        session = esys.start_auth_session(
            tpm_key=ek,
            bind=ESYS_TR.NONE,
            session_type=TPM2_SE.POLICY,
            symmetric=TPMT_SYM_DEF(
                algorithm=TPM2_ALG.AES,
                keyBits=TPMU_SYM_KEY_BITS(aes=128),
                mode=TPMU_SYM_MODE(aes=TPM2_ALG.CFB),
            ),
            auth_hash=policy_hash,
        )
    with flushed(esys, session):
        esys.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION | encrypts)
        yield session


@contextmanager
def ek_authorisation(esys: ESAPI, ek: ESYS_TR, kind: KeyKind) -> Iterator[ESYS_TR]:
    """A policy session that satisfies the EK's policy, A or B, for one use of the EK."""
    both = TPMA_SESSION.DECRYPT | TPMA_SESSION.ENCRYPT
    policy_hash = TPM2_ALG(kind.hash.tpm_id)
    with salted_policy(esys, ek, encrypts=both, policy_hash=policy_hash) as session:
        with command("TPM2_PolicySecret"):
            esys.policy_secret(ESYS_TR.ENDORSEMENT, session)
        if kind.is_high:
            branches = (POLICY_A_SHA384, POLICY_C_SHA384)
            with command("TPM2_PolicyOR"):
                esys.policy_or(session, TPML_DIGEST([TPM2B_DIGEST(one) for one in branches]))
        yield session


def selection(bank: HashAlg, pcrs: Sequence[int]) -> TPML_PCR_SELECTION:
    """TPML_PCR_SELECTION of one bank."""
    return TPML_PCR_SELECTION([TPMS_PCR_SELECTION(hash=TPM2_ALG(bank.tpm_id), pcrs=tuple(pcrs))])


def nv_indices(esys: ESAPI, first: int, last: int) -> list[int]:
    """Defined NV indices in a range, ascending."""
    with command("TPM2_GetCapability"):
        _, capability = esys.get_capability(TPM2_CAP.HANDLES, first, last - first + 1)
    return [index for handle in capability.data.handles if (index := int(handle)) <= last]
