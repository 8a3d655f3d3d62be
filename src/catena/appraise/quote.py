"""The quote itself: steps a to e of TRUST, attestation step 5, one function for each check.

======  ==========================================  ===============================
step    function                                    refuses
======  ==========================================  ===============================
a       ``check_structure``, ``check_signer``       what is no quote, or not of this AK
b       ``check_signature``                         a signature that does not hold
c       ``check_binding`` (and ``nonce``)           evidence moved from elsewhere
d       ``check_selection``, ``check_pcr_digest``   other PCRs than asked for
e       ``check_clock``                             a TPM that went back in time
======  ==========================================  ===============================

Until c has held, every input is *untrusted* and may come from anybody.
TPMS_ATTEST: TPM 2.0 Library, Part 2, clause 10.12; TPM2_Quote: Part 3, clause 18.4.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from catena.appraise.refusal import AttestationRefusal, UnauthenticatedRefusal
from catena.evidence import Evidence, qualifying_data
from catena.formats.tpm2 import (
    RH_ENDORSEMENT,
    TPM_GENERATED_VALUE,
    TPM_ST_ATTEST_QUOTE,
    Attest,
    ClockInfo,
    Public,
    QuoteInfo,
    TpmSignature,
    primary_qualified_name,
)
from catena.ids import QUOTED_PCRS, HashAlg

_HASHES: dict[HashAlg, hashes.HashAlgorithm] = {
    HashAlg.SHA256: hashes.SHA256(),
    HashAlg.SHA384: hashes.SHA384(),
    HashAlg.SHA512: hashes.SHA512(),
}


KEPT_KEYS = 4096
"""Enrolled AKs whose key and name are kept ready: they stay the same for months."""


class NotTpmGenerated(UnauthenticatedRefusal):
    """A structure the TPM did not make: its magic is not TPM_GENERATED_VALUE."""

    code = "quote-not-tpm-generated"
    step = "a"


class NotAQuote(UnauthenticatedRefusal):
    """The TPM attested something else than PCRs."""

    code = "quote-wrong-type"
    step = "a"


class ForeignSigner(UnauthenticatedRefusal):
    """Signed by another key than the AK that was enrolled for this node."""

    code = "quote-foreign-signer"
    step = "a"


class WrongSignatureScheme(UnauthenticatedRefusal):
    """A signature scheme other than the one the enrolled AK is fixed to."""

    code = "quote-wrong-scheme"
    step = "b"


class WrongSignatureHash(UnauthenticatedRefusal):
    """A signature hash that is weak, or not the one the enrolled AK is fixed to."""

    code = "quote-wrong-hash"
    step = "b"


class ForgedQuote(UnauthenticatedRefusal):
    """The signature does not hold under the enrolled AK."""

    code = "quote-forged"
    step = "b"


class UnboundQuote(UnauthenticatedRefusal):
    """The quote was made for another nonce, another CSR key or other logs."""

    code = "quote-unbound"
    step = "c"


class WeakBank(AttestationRefusal):
    """A PCR bank whose hash is broken, or that catena does not know."""

    code = "bank-weak"
    remedy = "Switch on a SHA-256 or SHA-384 PCR bank in the firmware's setup."
    step = "d"


class RelabelledPcrSelection(AttestationRefusal):
    """The quote selects another bank than the evidence says."""

    code = "pcr-selection-relabelled"
    step = "d"


class SeveralBanks(AttestationRefusal):
    """The quote selects PCRs of no bank, of several, or of one bank twice."""

    code = "pcr-selection-several-banks"
    step = "d"


class NarrowedPcrSelection(AttestationRefusal):
    """The quote leaves out PCRs that it must cover."""

    code = "pcr-selection-narrowed"
    step = "d"


class WidenedPcrSelection(AttestationRefusal):
    """The quote selects PCRs that were not asked for."""

    code = "pcr-selection-widened"
    step = "d"


class PcrDigestMismatch(AttestationRefusal):
    """The PCR values that were sent are not the ones that were quoted."""

    code = "pcr-digest-mismatch"
    step = "d"


class ReplayedQuote(UnauthenticatedRefusal):
    """Not fresh: the quote of the last attestation once more, known by its TPM clock."""

    code = "quote-replayed"
    remedy = "Attest again with a new nonce: evidence is worth one attestation."
    step = "c"


class ResetCountRollback(AttestationRefusal):
    """The TPM has been reset fewer times than it had before: cloned, cleared or replayed."""

    code = "reset-count-rollback"
    remedy = "If the TPM was cleared on purpose, let a person approve the node again."
    step = "e"


class RestartCountRollback(AttestationRefusal):
    """Within one boot session, fewer resumes than before."""

    code = "restart-count-rollback"
    step = "e"


class ClockRollback(AttestationRefusal):
    """Within one boot session, an earlier clock than before: an older quote."""

    code = "clock-rollback"
    step = "e"


@dataclass(frozen=True, slots=True)
class ClockState:
    """The TPM's clock as of one attestation; ``clock`` is in milliseconds."""

    reset_count: int
    restart_count: int
    clock: int


def check_structure(attest: Attest) -> QuoteInfo:
    """Step 5a: TPM_GENERATED_VALUE and TPM_ST_ATTEST_QUOTE. Trailing bytes fail in parsing."""
    if attest.magic != TPM_GENERATED_VALUE:
        raise NotTpmGenerated(
            "the quote was not made by a TPM",
            expected=f"{TPM_GENERATED_VALUE:#010x}",
            got=f"{attest.magic:#010x}",
        )
    if attest.type != TPM_ST_ATTEST_QUOTE or attest.quote is None:
        raise NotAQuote(
            "the TPM attested something else than PCRs",
            expected=f"{TPM_ST_ATTEST_QUOTE:#06x}",
            got=f"{attest.type:#06x}",
        )
    return attest.quote


def check_signer(attest: Attest, ak: Public) -> None:
    """Step 5a: the signer's qualified name is the enrolled AK as an endorsement primary."""
    expected = _qualified_name(ak)
    if not hmac.compare_digest(attest.qualified_signer, expected):
        raise ForeignSigner(
            "the quote names another key than the enrolled AK",
            expected=expected.hex(),
            got=attest.qualified_signer.hex(),
        )


@lru_cache(maxsize=KEPT_KEYS)
def _qualified_name(ak: Public) -> bytes:
    return primary_qualified_name(ak.name(), RH_ENDORSEMENT)


def check_signature(quote: bytes, signature: TpmSignature, ak: Public) -> None:
    """Step 5b: scheme and hash are the ones the AK is fixed to, and the signature holds."""
    fixed = ak.scheme
    if fixed is None or signature.scheme.upper() != fixed.algorithm.name:
        raise WrongSignatureScheme(
            "the quote is signed with another scheme than the AK's",
            expected=fixed.algorithm.name.lower() if fixed else "a fixed scheme",
            got=signature.scheme,
        )
    if signature.hash is not fixed.hash or signature.hash not in _HASHES:
        raise WrongSignatureHash(
            "the quote is signed with another hash than the AK's",
            expected=str(fixed.hash),
            got=signature.hash,
        )
    try:
        _verify(ak, signature, quote)
    except InvalidSignature as error:
        raise ForgedQuote("the quote's signature does not hold under the enrolled AK") from error


def _verify(ak: Public, signature: TpmSignature, quote: bytes) -> None:
    algorithm, key, raw = _HASHES[signature.hash], _key(ak), signature.signature_bytes()
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(raw, quote, ec.ECDSA(algorithm))
    else:
        _rsa_verify(key, signature.scheme, raw, quote, algorithm)


@lru_cache(maxsize=KEPT_KEYS)
def _key(ak: Public) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    """Checking that the point lies on its curve costs half a signature."""
    return ak.key()


def _rsa_verify(
    key: rsa.RSAPublicKey, scheme: str, raw: bytes, quote: bytes, algorithm: hashes.HashAlgorithm
) -> None:
    """TPMs differ in the salt length of RSASSA-PSS (Part 1, B.7), so any is accepted."""
    if scheme == "rsapss":
        pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
        key.verify(raw, quote, pss, algorithm)
    else:
        key.verify(raw, quote, padding.PKCS1v15(), algorithm)


def check_binding(attest: Attest, evidence: Evidence, spki: bytes) -> None:
    """Step 5c: the quote was made for this nonce, this CSR key and these logs, together."""
    expected = qualifying_data(evidence.nonce, spki, evidence.manifest)
    if not hmac.compare_digest(attest.extra_data, expected):
        raise UnboundQuote("the quote was made for another nonce, key or set of logs")


def check_bank(bank: str) -> HashAlg:
    """Step 5d: one bank that catena accepts."""
    try:
        alg = HashAlg(bank)
    except ValueError:
        raise WeakBank("the PCR bank is unknown", expected="sha256 or better") from None
    if alg not in _HASHES:
        raise WeakBank("the PCR bank is too weak", expected="sha256 or better", got=alg)
    return alg


def check_selection(quote: QuoteInfo, bank: HashAlg) -> None:
    """Step 5d: ``pcrSelect`` is exactly PCRs 0–15 of ``bank``."""
    if len(quote.selections) != 1:
        raise SeveralBanks(
            "the quote must select one bank", expected="1", got=f"{len(quote.selections)}"
        )
    (selection,) = quote.selections
    if selection.bank != bank:
        raise RelabelledPcrSelection(
            "the quote selects another bank than the evidence says",
            expected=bank,
            got=str(selection.bank),
        )
    if selection.pcrs == QUOTED_PCRS:
        return
    missing = sorted(set(QUOTED_PCRS) - set(selection.pcrs))
    if missing:
        raise NarrowedPcrSelection("the quote leaves out PCRs", got=f"without {_list(missing)}")
    extra = sorted(set(selection.pcrs) - set(QUOTED_PCRS))
    if extra:
        raise WidenedPcrSelection("the quote selects more PCRs", got=f"also {_list(extra)}")


def _list(pcrs: list[int]) -> str:
    return ", ".join(map(str, pcrs))


def check_pcr_digest(
    quote: QuoteInfo, values: tuple[bytes, ...], bank: HashAlg, signature_hash: HashAlg
) -> None:
    """Step 5d: ``pcrDigest`` is the digest over the values that were sent.

    TPM2_Quote hashes the selected values in order with the hash of the signing scheme, which
    need not be the bank's (Part 3, clause 18.4.1).
    """
    size = bank.size
    if len(values) != len(QUOTED_PCRS) or set(map(len, values)) != {size}:
        raise PcrDigestMismatch(
            "the PCR values do not have the bank's size", expected=f"{size} bytes each"
        )
    if not hmac.compare_digest(signature_hash.digest(b"".join(values)), quote.pcr_digest):
        raise PcrDigestMismatch("the PCR values are not the ones that were quoted")


def check_clock(found: ClockInfo, before: ClockState | None) -> ClockState:
    """Step 5e: resets, resumes and time never go backwards for this AK.

    A higher ``resetCount`` is a new boot session: the resume count starts again, and the clock
    may fall back by the few minutes between its saves to NV memory (Part 1, clause 36.3.1), so
    neither is compared. Within a session both must not fall, and both the same is a replay, which
    anybody could send. ``safe`` false says that the clock
    *may* repeat values of an earlier session; since only clocks of one session are compared,
    that cannot hide a rollback, and it is left to the policy as ``clock_safe``.

    That a new session brings its own boot log follows from step f: PCRs start again from their
    reset values, so only that boot's log replays to them.
    """
    state = ClockState(found.reset_count, found.restart_count, found.clock)
    if before is None or state.reset_count > before.reset_count:
        return state
    if state == before:
        raise ReplayedQuote("the quote is not newer than the last one")
    if state.reset_count < before.reset_count:
        raise ResetCountRollback(
            "the TPM's reset count went back",
            expected=f"at least {before.reset_count}",
            got=f"{state.reset_count}",
        )
    if state.restart_count < before.restart_count:
        raise RestartCountRollback(
            "the TPM's restart count went back within one boot",
            expected=f"at least {before.restart_count}",
            got=f"{state.restart_count}",
        )
    if state.clock < before.clock:
        raise ClockRollback(
            "the TPM's clock went back within one boot",
            expected=f"at least {before.clock} ms",
            got=f"{state.clock} ms",
        )
    return state
