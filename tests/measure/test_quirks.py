"""Each quirk rule: needed for its real log, enough for it, and of no use to a forger."""

from __future__ import annotations

from importlib import resources

import pytest

from catena.formats import tcglog
from catena.formats.efi import EFI_GLOBAL_VARIABLE, VariableData
from catena.formats.tcglog import EventType
from catena.ids import HashAlg
from catena.measure import grammar, quirks
from catena.measure.quirks import NONE, QuirkError, parse, prepare, shipped
from changed import replace

SHA1, SHA256 = HashAlg.SHA1, HashAlg.SHA256
RULES = {rule.id: rule for rule in shipped().rules}
WINDOWS = "windows-separators"

FILE = """
id = "some-quirk"
version = 1
title = "Firmware does something"
weakness = false
documents = ["Somewhere, some page"]
log = "file"
[condition]
pcr = 7
contents = ["text"]
[allows]
claim = true
after_separator = false
"""


def late(log, bank, rules=NONE):
    by_index = {event.index: event for event in log.events}
    return [
        by_index[fault.index]
        for fault in grammar.problems(log, bank, rules)
        if isinstance(fault, grammar.EventAfterSeparator)
    ]


def test_every_data_file_is_a_rule_and_every_rule_has_its_file():
    files = [one.name for one in resources.files(quirks).iterdir() if one.name.endswith(".toml")]
    assert sorted(files) == sorted(f"{name}.toml" for name in RULES)
    assert len(RULES) >= 4


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_documented_and_has_a_real_log(corpus, name):
    rule = RULES[name]
    assert all(len(one) > 20 for one in rule.documents)
    log = tcglog.parse((corpus / "eventlogs" / rule.log).read_bytes())
    bank = SHA256 if SHA256 in log.banks else SHA1
    found = [e for e in log.events if shipped().find(e.pcr, e.digests.get(bank), bank) == rule]
    assert found
    assert all(event.data in rule.contents() for event in found)


@pytest.mark.parametrize(
    "name", [name for name, rule in RULES.items() if rule.allows.after_separator]
)
def test_its_log_is_refused_without_it_and_sound_with_it(corpus, name):
    rule = RULES[name]
    log = tcglog.parse((corpus / "eventlogs" / rule.log).read_bytes())
    refused = late(log, SHA256)
    assert refused
    assert {event.pcr for event in refused} == set(rule.pcrs)
    with pytest.raises(grammar.EventAfterSeparator):
        grammar.check(log, SHA256)
    grammar.check(log, SHA256, prepare([rule]))
    others = prepare(one for one in RULES.values() if one is not rule)
    with pytest.raises(grammar.EventAfterSeparator):
        grammar.check(log, SHA256, others)


@pytest.mark.parametrize(
    "name", [name for name, rule in RULES.items() if rule.allows.after_separator]
)
def test_another_content_or_pcr_does_not_pass_with_it(corpus, name):
    """A forger may choose type and data; only the rule's own digest in its own PCR passes."""
    rule = RULES[name]
    log = tcglog.parse((corpus / "eventlogs" / rule.log).read_bytes())
    odd = late(log, SHA256)[0]
    lies = (
        replace(odd, digests={bank: bank.digest(odd.data + b"!") for bank in odd.digests}),
        replace(odd, pcr=6),
    )
    for lie in lies:
        assert late(replace(log, events=(*log.events, lie)), SHA256, shipped()) == [lie]


def test_a_rule_that_allows_no_lateness_allows_none(log, edit, measured):
    claim_only = prepare([parse(FILE)])
    event = measured(7, EventType.EV_EFI_ACTION, b"text")
    forged = edit(log, [*log.events, event])
    assert claim_only.find(7, SHA256.digest(b"text"), SHA256) is not None
    assert [one.data for one in late(forged, SHA256, claim_only)] == [b"text"]


def test_variables_are_recognised_as_a_whole():
    text = VariableData(EFI_GLOBAL_VARIABLE, "AuditMode", b"\0").encode()
    rule = shipped().find(1, SHA256.digest(text), SHA256)
    assert rule is not None
    assert rule.id == "late-mode-variables"
    on = VariableData(EFI_GLOBAL_VARIABLE, "AuditMode", b"\1").encode()
    assert shipped().find(1, SHA256.digest(on), SHA256) is None


def test_windows_separators_are_claimed_in_three_pcrs():
    digest = SHA256.digest(b"WBCL")
    assert {pcr for pcr in range(24) if shipped().find(pcr, digest, SHA256)} == {12, 13, 14}
    assert RULES[WINDOWS].label == "quirk:windows-separators@1"


def test_no_rule_recognises_a_missing_digest():
    assert shipped().find(7, None, SHA256) is None
    assert NONE.find(7, SHA256.digest(b"x"), SHA256) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("some-quirk", "Some Quirk"), "kebab-case"),
        (("version = 1", "version = 0"), "not a quirk rule"),
        (("pcr = 7\n", ""), "one of pcr and pcrs"),
        (("pcr = 7\n", "pcr = 7\npcrs = [1]\n"), "one of pcr and pcrs"),
        (("pcr = 7", "pcr = 16"), "not a quirk rule"),
        (('contents = ["text"]\n', ""), "recognises nothing"),
        (("claim = true", "claim = false"), "allows nothing"),
        (("[allows]\n", "[allows]\nextra = 1\n"), "not a quirk rule"),
        (('documents = ["Somewhere, some page"]', "documents = []"), "not a quirk rule"),
        (("version = 1", "version ="), "not a quirk rule"),
    ],
)
def test_a_file_that_is_no_rule_is_refused(change, fault):
    with pytest.raises(QuirkError, match=fault):
        parse(FILE.replace(*change))


def test_a_file_of_any_length_is_refused():
    with pytest.raises(QuirkError, match="too long"):
        parse(FILE + "#" * quirks.MAX_FILE)


def test_two_rules_about_the_same_are_refused():
    with pytest.raises(QuirkError, match="about the same"):
        prepare([parse(FILE), parse(FILE.replace("some-quirk", "other-quirk"))])
