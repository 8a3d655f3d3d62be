"""Judging a proven boot again, under other references or another policy: what if.

The quote was verified when the evidence came in, and proved the boot log and how much of IMA's
counts. What is judged again is everything that follows from them: bindings, facts, grammar,
claims, policy (steps g to j of TRUST). What only the quote said (clock, TPM, bank) is taken from
the facts of that appraisal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from catena.appraise.boot import examine_firmware
from catena.appraise.explanation import explain
from catena.appraise.facts import Facts
from catena.appraise.measured import MeasuredEvent, Told
from catena.appraise.policy import Policy
from catena.appraise.reference import ReferenceKind, References
from catena.errors import Refusal
from catena.formats import tcglog
from catena.formats.nodeapi import Reason
from catena.ids import HashAlg
from catena.measure.replay import replay


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """An IMA entry as an appraisal left it; ``rule`` is the built-in rule that claimed it."""

    index: int
    pcr: int
    digest: str
    type: str
    description: str
    rule: str | None


def judge_again(
    boot_log: bytes,
    runtime: Sequence[RuntimeEvent],
    facts: Facts,
    references: References,
    policy: Policy,
) -> tuple[Reason, ...]:
    """Why the boot would not be trusted; none means that it would. Raises ``FormatError``.

    ``facts`` are those of the appraisal that proved this boot.
    """
    bank = HashAlg(facts.bank)
    log = tcglog.parse(boot_log)
    try:
        firmware = examine_firmware(log, replay(log, bank), references.quirks)
    except Refusal as refusal:
        return (Reason(code=refusal.code, message=str(refusal), remedy=refusal.remedy),)
    later = tuple(_measured(one, bank) for one in runtime)
    explanation = explain((*firmware.events, *later), references, bank, firmware.stated)
    release = explanation.applying(ReferenceKind.RELEASE)
    key_set = explanation.applying(ReferenceKind.KEYSET)
    capture = explanation.applying(ReferenceKind.FIRMWARE)
    now = msgspec.structs.replace(
        facts,
        release=release.label if release else "",
        release_security_version=release.security_version if release else -1,
        key_set=key_set.label if key_set else "",
        firmware=capture.label if capture else "",
        unclaimed_events=explanation.unclaimed,
        quirks=tuple(rule.id for rule in firmware.quirks),
        weaknesses=tuple(rule.id for rule in firmware.quirks if rule.weakness),
    )
    return (*explanation.reasons, *policy.judge(now))


def _measured(one: RuntimeEvent, bank: HashAlg) -> MeasuredEvent:
    return MeasuredEvent(
        index=one.index,
        pcr=one.pcr,
        digest=one.digest,
        rule=one.rule,
        extends=True,
        bound=True,
        source=Told(one.type, one.description),
        bank=bank,
    )
