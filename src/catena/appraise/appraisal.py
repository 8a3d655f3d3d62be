"""One attestation, judged: TRUST, attestation step 5, from a to j in this order.

Steps a to h raise (a ``Refusal``, or ``FormatError`` for bytes that are no quote, signature or
request at all); i and j collect reasons, so that a person sees everything that is wrong with a
boot at once. The function is pure: the same arguments give the same verdict, on any replica.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from catena.appraise.csr import RequestedKey, read_csr
from catena.appraise.explanation import Explanation, explain
from catena.appraise.facts import Facts
from catena.appraise.logs import Logs, read_logs
from catena.appraise.measured import MeasuredEvent, measured_events
from catena.appraise.nonce import LIFETIME, check_nonce
from catena.appraise.policy import Policy
from catena.appraise.quote import (
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
from catena.appraise.reference import ReferenceKind, References
from catena.appraise.replayed import Replayed, check_extended, check_replay
from catena.appraise.verdict import Appraisal, KnownNode
from catena.evidence import Evidence
from catena.formats.tpm2 import parse_attest, parse_public, parse_signature
from catena.ids import QUOTED_PCRS, HashAlg
from catena.measure import facts as boot_facts
from catena.measure import grammar
from catena.measure.facts import BootFacts


@dataclass(frozen=True, slots=True)
class _ProvenQuote:
    """What holds after steps a to e."""

    bank: HashAlg
    clock: ClockState
    clock_safe: bool
    key: RequestedKey


@dataclass(frozen=True, slots=True)
class _ProvenBoot:
    """What holds after steps f to h."""

    logs: Logs
    replayed: Replayed
    facts: BootFacts
    events: tuple[MeasuredEvent, ...]


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
) -> Appraisal:
    """Judge ``evidence`` of ``node``.

    ``logs`` maps SHA-256 to content for at least the logs of the manifest, ``now`` is aware.
    Raises ``FormatError`` or a ``Refusal``; ``refusal.is_authenticated`` tells whether a
    refusal may be held against the node.
    """
    quote = _prove_quote(evidence, node, nonce_key, now, nonce_lifetime)
    boot = _prove_boot(evidence, logs, quote.bank)
    explanation = explain(boot.events, references, quote.bank, boot.replayed.boot.pcrs)  # (i)
    facts = _facts(quote, boot, explanation, node)
    reasons = (*explanation.reasons, *policy.judge(facts))  # (j)
    return Appraisal(
        verdict="untrusted" if reasons else "trusted",
        reasons=reasons,
        facts=facts,
        events=explanation.events,
        clock=quote.clock,
        release=facts.release or None,
        boot_log_sha256=boot.logs.boot_sha256,
        public_key=quote.key.public_key,
        csr_spki=quote.key.spki,
        bank=quote.bank,
        pcr_values=dict(zip(QUOTED_PCRS, evidence.pcrs, strict=True)),
    )


def _prove_quote(
    evidence: Evidence, node: KnownNode, nonce_key: bytes, now: datetime, lifetime: timedelta
) -> _ProvenQuote:
    """Steps a to e: the enrolled TPM quoted exactly these PCR values, for this exchange, now."""
    ak = parse_public(node.ak_public)
    attest = parse_attest(evidence.quote)
    quote = check_structure(attest)  # (a)
    check_signer(attest, ak)
    signature = parse_signature(evidence.signature)
    check_signature(evidence.quote, signature, ak)  # (b)
    key = read_csr(evidence.csr)
    check_binding(attest, evidence, key.spki)  # (c)
    check_nonce(nonce_key, node.id, evidence.nonce, now, lifetime)
    bank = check_bank(evidence.bank)  # (d)
    check_selection(quote, bank)
    check_pcr_digest(quote, evidence.pcrs, bank, signature.hash)
    clock = check_clock(attest.clock, node.clock)  # (e)
    return _ProvenQuote(bank, clock, attest.clock.safe, key)


def _prove_boot(evidence: Evidence, contents: Mapping[str, bytes], bank: HashAlg) -> _ProvenBoot:
    """Steps f to h: the logs are the whole story of those values, and a sound one."""
    check_extended(evidence.pcrs)  # (f)
    logs = read_logs(evidence.manifest, contents, bank)
    replayed = check_replay(evidence.pcrs, logs, bank)
    facts = boot_facts.read(logs.boot, bank)  # (g)
    events = measured_events(logs, replayed.ima_covered, bank)
    grammar.check(logs.boot, bank)  # (h)
    return _ProvenBoot(logs, replayed, facts, events)


def _facts(
    quote: _ProvenQuote, boot: _ProvenBoot, explanation: Explanation, node: KnownNode
) -> Facts:
    """The flat facts; what the boot does not prove takes the value that admits least."""
    release = explanation.applying(ReferenceKind.RELEASE)
    key_set = explanation.applying(ReferenceKind.KEYSET)
    firmware = explanation.applying(ReferenceKind.FIRMWARE)
    return Facts(
        secure_boot=boot.facts.secure_boot is True,
        setup_mode=boot.facts.setup_mode is True,
        audit_mode=boot.facts.audit_mode is True,
        deployed_mode=boot.facts.deployed_mode is True,
        release=release.label if release else "",
        release_security_version=release.security_version if release else -1,
        key_set=key_set.label if key_set else "",
        firmware=firmware.label if firmware else "",
        unclaimed_events=explanation.unclaimed,
        opaque_events=sum(event.extends and not event.bound for event in boot.events),
        bank=quote.bank,
        tpm_kind=node.tpm_kind,
        startup_locality=boot.facts.startup_locality or 0,
        reset_count=quote.clock.reset_count,
        restart_count=quote.clock.restart_count,
        clock_safe=quote.clock_safe,
        runtime_entries=boot.replayed.ima_covered,
        runtime_ahead=len(boot.logs.ima) - boot.replayed.ima_covered,
        command_line=boot.facts.command_line or "",
        authorities=boot.facts.authorities,
    )
