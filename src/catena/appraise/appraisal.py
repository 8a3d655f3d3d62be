"""One attestation, judged: TRUST, attestation step 5, from a to j in this order.

Steps a to h raise (a ``Refusal``, or ``FormatError`` for bytes that are no quote, signature or
request at all); i and j collect reasons, so that a person sees everything that is wrong with a
boot at once. The function is pure: the same arguments give the same verdict, on any replica.
Steps a to e are about the exchange and live in ``quote``; f to i about the boot, in ``boot``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from catena.appraise.boot import ExaminedBoot, Question, examine
from catena.appraise.csr import RequestedKey, read_csr
from catena.appraise.facts import Facts
from catena.appraise.indices import CertifiedIndex, certified_indices
from catena.appraise.nonce import LIFETIME, check_age, check_nonce
from catena.appraise.policy import Policy
from catena.appraise.quote import (
    KEPT_KEYS,
    ClockState,
    check_bank,
    check_binding,
    check_clock,
    check_pcr_digest,
    check_selection,
    check_signature,
    check_signer,
    check_structure,
)
from catena.appraise.reference import References
from catena.appraise.verdict import Appraisal, KnownNode
from catena.evidence import Evidence
from catena.formats.ekattributes import dotted_version
from catena.formats.tpm2 import Public, parse_attest, parse_public, parse_signature
from catena.ids import QUOTED_PCRS, HashAlg

MAX_NUMBER = 2**63 - 1
"""The largest whole number that a policy knows."""


@dataclass(frozen=True, slots=True)
class _ProvenQuote:
    """What holds after steps a to e."""

    bank: HashAlg
    clock: ClockState
    clock_safe: bool
    firmware: int
    """In clear, for the AK is a key of the endorsement hierarchy (Part 1, 36.7)."""
    key: RequestedKey
    indices: tuple[CertifiedIndex, ...]


def appraise(
    evidence: Evidence,
    *,
    logs: Mapping[str, bytes],
    node: KnownNode,
    nonce_key: bytes,
    references: References,
    policy: Policy,
    now: datetime,
    nonce_lifetime: timedelta = LIFETIME,
    known: ExaminedBoot | None = None,
) -> Appraisal:
    """Judge ``evidence`` of ``node``.

    ``logs`` maps SHA-256 to content for at least the logs of the manifest, ``now`` is aware.
    ``known`` is the ``boot`` of an earlier appraisal, of this node or another: as far as it
    answers the same question it is not asked again (``appraise.boot``), and the verdict is
    the same as without it. Raises ``FormatError`` or a ``Refusal``; ``refusal.is_authenticated`` tells whether a
    refusal may be held against the node.
    """

    def check_fresh() -> None:
        check_nonce(
            nonce_key, node.id, evidence.nonce, now, nonce_lifetime, concluded=node.attested
        )

    quote = _prove_quote(evidence, node, check_fresh)
    return _judge(evidence, logs, node, references, policy, quote, known)


def appraise_recorded(
    evidence: Evidence,
    *,
    logs: Mapping[str, bytes],
    node: KnownNode,
    references: References,
    policy: Policy,
    at: datetime,
) -> Appraisal:
    """Judge evidence again that a server concluded on ``at``; never to be asked about new evidence.

    All of ``appraise`` but the nonce's MAC: its key stays with the server. Raises as ``appraise``.
    """

    def check_fresh() -> None:
        check_age(evidence.nonce, at, concluded=node.attested)

    quote = _prove_quote(evidence, node, check_fresh)
    return _judge(evidence, logs, node, references, policy, quote)


def _judge(  # noqa: PLR0917 - what both ways of asking have in common
    evidence: Evidence,
    logs: Mapping[str, bytes],
    node: KnownNode,
    references: References,
    policy: Policy,
    quote: _ProvenQuote,
    known: ExaminedBoot | None = None,
) -> Appraisal:
    """Steps f to j."""
    question = Question(evidence.manifest, evidence.pcrs, quote.bank, references, quote.indices)
    boot = examine(question, logs, known)  # (f) to (i)
    facts = _facts(quote, boot, node)
    reasons = (*boot.explanation.reasons, *boot.container_reasons, *policy.judge(facts))  # (j)
    return Appraisal(
        verdict="untrusted" if reasons else "trusted",
        reasons=reasons,
        facts=facts,
        events=boot.explanation.events,
        clock=quote.clock,
        release=facts.release or None,
        boot_log_sha256=boot.sha256,
        public_key=quote.key.public_key,
        csr_spki=quote.key.spki,
        bank=quote.bank,
        pcr_values=dict(zip(QUOTED_PCRS, evidence.pcrs, strict=True)),
        boot=boot,
    )


def _prove_quote(
    evidence: Evidence, node: KnownNode, check_fresh: Callable[[], None]
) -> _ProvenQuote:
    """Steps a to e: the enrolled TPM quoted exactly these PCR values, for this exchange, now."""
    ak = _enrolled(node.ak_public)
    attest = parse_attest(evidence.quote)
    quote = check_structure(attest)  # (a)
    check_signer(attest, ak)
    signature = parse_signature(evidence.signature)
    check_signature(evidence.quote, signature, ak)  # (b)
    key = read_csr(evidence.csr)
    check_binding(attest, evidence, key.spki)  # (c)
    check_fresh()
    bank = check_bank(evidence.bank)  # (d)
    check_selection(quote, bank)
    check_pcr_digest(quote, evidence.pcrs, bank, signature.hash)
    clock = check_clock(attest.clock, node.clock)  # (e)
    indices = certified_indices(evidence.indices or (), ak, attest)
    return _ProvenQuote(bank, clock, attest.clock.safe, attest.firmware_version, key, indices)


@lru_cache(maxsize=KEPT_KEYS)
def _enrolled(ak_public: bytes) -> Public:
    """The enrolled AK. It is the server's own row, the same in every attestation of a node."""
    return parse_public(ak_public)


def _facts(quote: _ProvenQuote, boot: ExaminedBoot, node: KnownNode) -> Facts:
    """The flat facts; what the boot does not prove takes the value that admits least."""
    measured = boot.firmware.facts
    return Facts(
        secure_boot=measured.secure_boot is True,
        setup_mode=measured.setup_mode is True,
        audit_mode=measured.audit_mode is True,
        deployed_mode=measured.deployed_mode is True,
        opaque_events=boot.opaque_events,
        bank=quote.bank,
        tpm_kind=node.tpm_kind,
        tpm_type=node.tpm.type,
        tpm_vendor=node.tpm.vendor,
        tpm_model=node.tpm.model,
        tpm_certified_version=node.tpm.version,
        tpm_tolerances=node.tpm.tolerances,
        tpm_firmware=dotted_version(quote.firmware, 8),
        tpm_firmware_number=min(quote.firmware, MAX_NUMBER),
        startup_locality=measured.startup_locality or 0,
        reset_count=quote.clock.reset_count,
        restart_count=quote.clock.restart_count,
        clock_safe=quote.clock_safe,
        runtime_entries=boot.ima_covered,
        runtime_ahead=boot.ima_ahead,
        command_line=measured.command_line or "",
        authorities=measured.authorities,
        role=node.role,
        site=node.site,
        channel=node.channel,
        **boot.claimed,
        **boot.containers,
    )
