"""NV indices that hold container records: certified by the node's TPM, expected by the server.

Refused is, by

``certified_indices``   what is no certificate of the AK that quoted, for this exchange, in this boot session
``expected_indices``    an index that is not exactly as it was opened and sealed, or that is kept back

Both belong to step f: the evidence's quote has been proven before (``quote``), so what comes with it is
held against the node. Which indices there are says the server (``References.container_indices``), whether
gates opened them in this boot says the quoted PCR that seals them (``formats.recordindex``): the node has
no say in either.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catena.appraise.logs import Logs
from catena.appraise.quote import check_signature, check_signer
from catena.appraise.recorded import ForeignRecord, UnexplainedRecord, register_name
from catena.appraise.refusal import AttestationRefusal, UnauthenticatedRefusal
from catena.appraise.replayed import UnexplainedPcr
from catena.evidence import IndexCertificate
from catena.formats.recordindex import BANK, RecordIndex, seal_event
from catena.formats.tpm2 import (
    TPM_GENERATED_VALUE,
    Attest,
    ClockInfo,
    Public,
    parse_attest,
    parse_signature,
)
from catena.formats.tpm2nv import TPM_ST_ATTEST_NV, NvCertifyInfo, parse_nv_certify_info
from catena.ids import HashAlg

if TYPE_CHECKING:
    from catena.appraise.reference import References

_REPLACE = "Containers may have run unrecorded: replace the node."
_AGENT = "The agent certifies indices right after it quotes; update it, or look at who sent this."


class RepeatedIndex(AttestationRefusal):
    """Two certificates for one NV index: it would be open which of them counts."""

    code = "container-index-repeated"
    remedy = _AGENT
    step = "f"


class IndexNotTpmGenerated(AttestationRefusal):
    """A certificate that no TPM made: its magic is not TPM_GENERATED_VALUE."""

    code = "container-index-not-tpm-generated"
    remedy = _AGENT
    step = "f"


class NotAnIndexCertificate(AttestationRefusal):
    """The TPM attested something else than the contents of an NV index."""

    code = "container-index-wrong-type"
    remedy = _AGENT
    step = "f"


class ForeignIndexSigner(AttestationRefusal):
    """An NV index certified by another key than the AK that quoted."""

    code = "container-index-foreign-signer"
    remedy = _AGENT
    step = "f"


class ForgedIndexCertificate(AttestationRefusal):
    """The signature of an NV index's certificate does not hold under the enrolled AK."""

    code = "container-index-forged"
    remedy = _AGENT
    step = "f"


class UnboundIndex(AttestationRefusal):
    """An NV index certified for another nonce, key or set of logs: an old certificate."""

    code = "container-index-unbound"
    remedy = _AGENT
    step = "f"


class IndexOfAnotherBoot(AttestationRefusal):
    """Certificate and quote are of different boot sessions of the TPM."""

    code = "container-index-other-boot"
    remedy = "Attest again: the TPM was reset or resumed between quote and certificate."
    step = "f"


class IndexBeforeQuote(AttestationRefusal):
    """An NV index certified before the quote was made."""

    code = "container-index-before-quote"
    remedy = _AGENT
    step = "f"


class UnexpectedIndex(AttestationRefusal):
    """An NV index that the server does not expect records in."""

    code = "container-index-unexpected"
    remedy = "Name the index in `container_indices` of server.toml, or let the gate use a PCR."
    step = "f"


class UnsealedIndex(AttestationRefusal):
    """An NV index with records that is not sealed: it could be defined again at any time."""

    code = "container-index-unsealed"
    remedy = _REPLACE
    step = "f"


class IndexBank(AttestationRefusal):
    """NV indices are sealed in the SHA-256 bank, and another one was quoted."""

    code = "container-index-bank"
    remedy = "Let the agent quote the bank sha256."
    step = "f"


class UnexplainedSeal(UnexplainedPcr):
    """The PCR that seals the indices was extended by something else, or for other indices."""

    code = "container-seal-unexplained"
    remedy = (
        "Name the same indices, in the same order, in gate.toml and in `container_indices` of "
        "server.toml; if they are, replace the node."
    )


class UncertifiedIndex(AttestationRefusal):
    """An index that was sealed in this boot, of which the evidence has no certificate."""

    code = "container-index-uncertified"
    remedy = (
        "Name every index in agent.toml. If they are named, the index was removed, and with it what "
        "it recorded: replace the node."
    )
    step = "f"


class RelabelledIndex(AttestationRefusal):
    """A certificate of one expected index, offered as that of another."""

    code = "container-index-relabelled"
    remedy = _REPLACE
    step = "f"


class AlteredIndex(AttestationRefusal):
    """An index with other attributes or another policy: its Name is not the expected one."""

    code = "container-index-altered"
    remedy = _REPLACE
    step = "f"


class PartialIndex(AttestationRefusal):
    """A certificate of only a part of an index."""

    code = "container-index-partial"
    remedy = _AGENT
    step = "f"


class UnrecordedIndex(UnexplainedRecord):
    """An index with records of which the evidence has none."""

    code = "container-index-unrecorded"
    remedy = "Name the gate's record file in agent.toml; if it is named, the file is gone: replace the node."


@dataclass(frozen=True, slots=True)
class CertifiedIndex:
    """What the TPM says an index holds. ``nv_index`` is the node's word, until ``name`` is compared."""

    nv_index: int
    name: bytes
    offset: int
    contents: bytes


def certified_indices(
    certificates: Iterable[IndexCertificate], ak: Public, quote: Attest
) -> tuple[CertifiedIndex, ...]:
    """Every certificate, held against ``quote``, the evidence's own, which was proven before.

    Raises ``FormatError`` or an ``AttestationRefusal``.
    """
    found = tuple(_certified(one, ak, quote) for one in certificates)
    if len({one.nv_index for one in found}) != len(found):
        raise RepeatedIndex("the evidence certifies one NV index twice")
    return found


def _certified(one: IndexCertificate, ak: Public, quote: Attest) -> CertifiedIndex:
    what = register_name(None, one.nv_index)
    attest = parse_attest(one.attest)
    info = _structure(attest, what)
    _signed(one, attest, ak, what)
    if not hmac.compare_digest(attest.extra_data, quote.extra_data):
        raise UnboundIndex(f"{what} was certified for another nonce, key or set of logs")
    _same_session(attest.clock, quote.clock, what)
    return CertifiedIndex(one.nv_index, info.name, info.offset, info.contents)


def _structure(attest: Attest, what: str) -> NvCertifyInfo:
    if attest.magic != TPM_GENERATED_VALUE:
        raise IndexNotTpmGenerated(
            f"the certificate of {what} was not made by a TPM", got=f"{attest.magic:#010x}"
        )
    if attest.type != TPM_ST_ATTEST_NV:
        raise NotAnIndexCertificate(
            f"the TPM attested something else than {what}",
            expected=f"{TPM_ST_ATTEST_NV:#06x}",
            got=f"{attest.type:#06x}",
        )
    return parse_nv_certify_info(attest.body)


def _signed(one: IndexCertificate, attest: Attest, ak: Public, what: str) -> None:
    """The quote's own checks; what they say about a sender is said about the node here."""
    try:
        check_signer(attest, ak)
    except UnauthenticatedRefusal as error:
        raise ForeignIndexSigner(
            f"{what} was certified by another key", expected=error.expected, got=error.got
        ) from error
    try:
        check_signature(one.attest, parse_signature(one.signature), ak)
    except UnauthenticatedRefusal as error:
        raise ForgedIndexCertificate(f"the certificate of {what}: {error.message}") from error


def _same_session(found: ClockInfo, quoted: ClockInfo, what: str) -> None:
    session = (found.reset_count, found.restart_count)
    if session != (quoted.reset_count, quoted.restart_count):
        raise IndexOfAnotherBoot(
            f"{what} was certified in another boot session than the quote's",
            expected=f"reset {quoted.reset_count}, restart {quoted.restart_count}",
            got=f"reset {found.reset_count}, restart {found.restart_count}",
        )
    if found.clock < quoted.clock:
        raise IndexBeforeQuote(
            f"{what} was certified before the quote",
            expected=f"at least {quoted.clock} ms",
            got=f"{found.clock} ms",
        )


def expected_indices(
    certified: tuple[CertifiedIndex, ...],
    references: References,
    logs: Logs,
    *,
    quoted: bytes,
    base: bytes,
    bank: HashAlg,
) -> Mapping[RecordIndex, bytes]:
    """Step 5f: the value of each index that was sealed in this boot; none before any was.

    ``quoted`` is the PCR that seals, in ``bank``, ``base`` what the firmware's log leaves in it. Raises an ``AttestationRefusal``.
    """
    pcr, wanted = references.container_pcr, references.container_indices
    named = {one.nv_index: one for one in certified}
    for index in (*named, *logs.indexed):
        if index not in wanted:
            raise UnexpectedIndex(f"nobody expects records in {register_name(None, index)}")
    if not wanted:
        return {}
    if logs.record is not None:
        raise ForeignRecord("the record is for a PCR", expected="one for each NV index")
    expected = [RecordIndex(index, pcr) for index in wanted]
    if quoted == base:
        _check_unused(named, expected)
        return {}
    _check_seal(pcr, wanted, quoted=quoted, base=base, bank=bank)
    return {one: _value(one, named, expected) for one in expected}


def _check_unused(named: Mapping[int, CertifiedIndex], expected: Iterable[RecordIndex]) -> None:
    """Before the seal an index may be open already, by a gate that is about to seal it, and no more.

    A gate records nothing before it has sealed, and the quote is older than the certificate.
    """
    for one in expected:
        if one.index in named and _value(one, named, expected) != one.base:
            raise UnsealedIndex(f"{one} has records, and PCR {one.pcr} does not seal it")


def _check_seal(
    pcr: int, wanted: tuple[int, ...], *, quoted: bytes, base: bytes, bank: HashAlg
) -> None:
    """The seal is all that is in the PCR, so the firmware's log may have nothing for it either."""
    if bank is not BANK:
        raise IndexBank("NV indices are sealed in another bank", expected=BANK, got=bank)
    sealed = bank.digest(bytes(bank.size) + bank.digest(seal_event(wanted)))
    if quoted != sealed or base != bytes(bank.size):
        raise UnexplainedSeal(
            f"PCR {pcr} is not the seal of the NV indices that the server expects",
            expected=sealed.hex(),
            got=quoted.hex(),
        )


def _value(
    index: RecordIndex, named: Mapping[int, CertifiedIndex], expected: Iterable[RecordIndex]
) -> bytes:
    found = named.get(index.index)
    if found is None:
        raise UncertifiedIndex(f"{index} is sealed, but was not certified")
    name = index.public(written=True).name()
    if found.name != name:
        others = {one.public(written=True).name() for one in expected}
        kind = RelabelledIndex if found.name in others else AlteredIndex
        raise kind(
            f"what was certified as {index} is another one",
            expected=name.hex(),
            got=found.name.hex(),
        )
    if found.offset or len(found.contents) != BANK.size:
        raise PartialIndex(
            f"{index} was not certified as a whole",
            expected=f"{BANK.size} bytes",
            got=f"{len(found.contents)} bytes from {found.offset}",
        )
    return found.contents
