"""What a quirk rule accounts for in a judged boot, and what a policy learns of it."""

from __future__ import annotations

from dataclasses import replace as replaced

import pytest

from appraise.forged import Exchange, codes, judge, measured, rebuilt
from catena.appraise.policy import compile_policy
from catena.formats.tcglog import EventType
from catena.measure.grammar import EventAfterSeparator
from catena.measure.quirks import NONE

REMARK = b"DMA Protection Disabled"
LENIENT = compile_policy(
    "[secure-boot] it is on\n  secure_boot\n[all] claimed\n  unclaimed_events == 0\n[keys] own\n  key_set != ''\n"
)


def remarking(boot, content=REMARK, *, late=True):
    """The boot of a machine whose firmware makes the remark in PCR 7."""

    def change(events):
        at = max(i for i, e in enumerate(events) if e.pcr == 7) + 1
        early = next(i for i, e in enumerate(events) if e.pcr == 7)
        place = at if late else early
        event = measured(7, EventType.EV_EFI_ACTION, content)
        return [*events[:place], event, *events[place:]]

    return rebuilt(boot, change)


@pytest.mark.parametrize("late", [True, False])
def test_the_default_policy_refuses_a_weakness_by_name(boot, references, late):
    appraisal = judge(Exchange(remarking(boot, late=late)).evidence(), references)
    assert codes(appraisal) == ["policy:no-weakness"]
    assert appraisal.facts.weaknesses == ("dma-protection-disabled",)
    assert appraisal.facts.quirks == ("dma-protection-disabled",)


def test_a_policy_may_live_with_it_and_the_keys_are_still_explained(boot, references):
    """The key set states PCR 7 without the remark, which the quirk rule accounts for."""
    appraisal = judge(Exchange(remarking(boot)).evidence(), references, policy=LENIENT)
    assert appraisal.verdict == "trusted"
    assert appraisal.facts.key_set == "acme"
    claims = {e.claimed_by for e in appraisal.events if e.description == repr(REMARK.decode())}
    assert claims == {"quirk:dma-protection-disabled@1"}


def test_without_the_rule_it_is_refused(boot, references):
    strict = replaced(references, quirks=NONE)
    with pytest.raises(EventAfterSeparator):
        judge(Exchange(remarking(boot)).evidence(), strict)
    early = judge(Exchange(remarking(boot, late=False)).evidence(), strict, policy=LENIENT)
    assert {"unclaimed-event", "key-set-mismatch"} <= set(codes(early))


@pytest.mark.parametrize("content", [b"DMA Protection Enabled", REMARK + b"!", REMARK.lower()])
def test_other_words_do_not_pass_with_it(boot, references, content):
    with pytest.raises(EventAfterSeparator):
        judge(Exchange(remarking(boot, content)).evidence(), references)


def test_a_foreign_key_does_not_pass_beside_it(boot, references):
    """Everything but the remark must still be what the key set states, in order."""

    def change(events):
        at = next(i for i, e in enumerate(events) if b"d\0b\0" in e.data and e.pcr == 7)
        foreign = measured(7, events[at].type, events[at].data[:-1] + b"x")
        return [*events[:at], foreign, *events[at + 1 :]]

    both = rebuilt(remarking(boot), change)
    appraisal = judge(Exchange(both).evidence(), references, policy=LENIENT)
    assert "key-set-mismatch" in codes(appraisal)


def test_a_remembered_boot_is_not_judged_by_other_rules(boot, references):
    evidence = Exchange(remarking(boot)).evidence()
    known = judge(evidence, references).boot
    with pytest.raises(EventAfterSeparator):
        judge(evidence, replaced(references, quirks=NONE), known=known)
