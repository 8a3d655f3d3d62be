"""Judging a proven boot again, under other references or another policy: what if.

The quote was verified when the evidence came in, and proved the boot log and how much of IMA's
counts. What is judged again is everything that follows from them: bindings, facts, grammar,
claims, policy (steps g to j of TRUST). What only the quote said (clock, TPM, bank) is taken from
the facts of that appraisal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from catena.appraise.boot import Firmware, examine_firmware
from catena.appraise.containerclaims import facts_together, judge_containers
from catena.appraise.containers import Account
from catena.appraise.explanation import explain
from catena.appraise.facts import Facts, claimed_facts
from catena.appraise.measured import MeasuredEvent
from catena.appraise.policy import Policy
from catena.appraise.reference import References
from catena.formats import tcglog
from catena.formats.nodeapi import Reason
from catena.ids import HashAlg
from catena.measure.quirks import Quirks
from catena.measure.replay import replay


def read_again(boot_log: bytes, bank: HashAlg, quirks: Quirks) -> Firmware:
    """What a proven firmware log says under these quirk rules. Raises ``FormatError``, ``Refusal``."""
    log = tcglog.parse(boot_log)
    return examine_firmware(log, replay(log, bank), quirks)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What IMA measured, and what the gates' records said, by NV index, None for a PCR."""

    measured: Sequence[MeasuredEvent] = ()
    containers: Mapping[int | None, Account] = field(default_factory=dict)


def judge_again(
    firmware: Firmware,
    runtime: Runtime,
    facts: Facts,
    references: References,
    policy: Policy,
) -> tuple[Reason, ...]:
    """Why the boot would not be trusted; none means that it would.

    ``facts`` are those of the appraisal that proved this boot, ``runtime`` what was measured
    after it.
    """
    events = (*firmware.events, *runtime.measured)
    explanation = explain(events, references, firmware.replay.bank, firmware.stated)
    contained = [
        judge_containers(account, references.container_policies, references.container_pcr, index)
        for index, account in runtime.containers.items()
    ]
    claimed = claimed_facts(explanation, firmware.quirks)
    now = msgspec.structs.replace(facts, **claimed, **facts_together(contained))
    reasons = (reason for one in contained for reason in one.reasons)
    return (*explanation.reasons, *reasons, *policy.judge(now))
