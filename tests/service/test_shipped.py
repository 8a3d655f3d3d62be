"""Quirk rules are named and versioned like every other source of claims, and shown as one."""

from __future__ import annotations

import pytest

from catena.ids import HashAlg
from catena.measure import quirks
from catena.service import shipped


def test_every_rule_is_listed_with_its_version():
    listed = {(one.name, one.version, one.kind, one.accepted_at) for one in shipped.views()}
    rules = quirks.shipped().rules
    assert listed == {(f"quirk:{one.id}", str(one.version), "quirk", None) for one in rules}


@pytest.mark.parametrize("rule", quirks.shipped().rules, ids=lambda rule: rule.id)
def test_a_rule_is_shown_with_the_measurements_that_it_recognises(rule):
    detail = shipped.find(rule.label)
    assert detail == shipped.find(f"quirk:{rule.id}")
    assert len(detail.events) == detail.reference.events
    for event in detail.events:
        for bank in HashAlg:
            digest = bytes.fromhex(event.digests[bank.value])
            assert quirks.shipped().find(event.pcr, digest, bank) == rule
    assert detail.document["documents"]


@pytest.mark.parametrize("name", ["windows-separators", "quirk:", "quirk:windows-separators@2"])
def test_another_name_is_no_rule(name):
    assert shipped.find(name) is None
