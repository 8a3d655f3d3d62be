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

from catena.appraise.boot import Firmware, examine_firmware
from catena.appraise.containerclaims import judge_containers
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
    """What IMA measured, and what the gate's record said; None without one."""

    measured: Sequence[MeasuredEvent] = ()
    containers: Account | None = None


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
    contained = judge_containers(
        runtime.containers, references.container_policies, references.container_pcr
    )
    claimed = claimed_facts(explanation, firmware.quirks)
    now = msgspec.structs.replace(facts, **claimed, **contained.facts)
    return (*explanation.reasons, *contained.reasons, *policy.judge(now))
