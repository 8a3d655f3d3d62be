"""Judging a proven boot again: everything that the references decide is decided anew."""

from __future__ import annotations

import msgspec

from appraise.forged import Exchange, judge
from catena.appraise.again import Runtime, judge_again, read_again
from catena.appraise.facts import ClaimedFacts, Facts, claimed_facts
from catena.appraise.policy import compile_policy
from catena.ids import HashAlg

IMPORTED = "[imported] a PCR policy explains the system\n  pcr_policy != ''\n"


def test_a_fact_of_references_that_are_gone_does_not_stay(boot, references):
    seen = judge(Exchange(boot).evidence(), references).facts
    stale = msgspec.structs.replace(seen, pcr_policy="flatcar-1")
    firmware = read_again(boot.log, HashAlg(seen.bank), references.quirks)
    found = judge_again(firmware, Runtime(), stale, references, compile_policy(IMPORTED))
    assert "policy:imported" in [one.code for one in found]


def test_an_appraisal_and_its_repetition_take_the_same_facts_from_the_references(boot, references):
    first = judge(Exchange(boot).evidence(), references)
    again = claimed_facts(first.boot.explanation, first.boot.firmware.quirks)
    assert again == first.boot.claimed
    assert set(again) == set(ClaimedFacts.__annotations__) <= set(Facts.__struct_fields__)
    assert {name: getattr(first.facts, name) for name in again} == again
