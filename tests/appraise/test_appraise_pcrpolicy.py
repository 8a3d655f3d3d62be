"""PCR policies: a GRUB boot that they explain, and what an attacker adds to it."""

from __future__ import annotations

import json

import pytest

from appraise.forged import (
    CORPUS,
    SHA256,
    SHA384,
    Boot,
    Exchange,
    codes,
    firmware_of,
    judge,
    keyset_of,
    measured,
    rebuilt,
    release_of,
)
from catena.appraise import pcrpolicy as matching
from catena.appraise.measured import firmware_events
from catena.appraise.pcrpolicy import match_policy
from catena.appraise.policy import compile_policy, default_policy_text
from catena.appraise.reference import UnusableReference, build_references
from catena.formats import pcrpolicy, tcglog
from catena.formats.references import PcrPolicy, PcrRule
from catena.formats.tcglog import EventType
from catena.measure.quirks import Quirks
from catena.measure.reading import read_events
from catena.measure.replay import replay
from changed import replace

KERNEL, MODULE = b"kernel image", b"normal.mod"
COMMANDS = {
    "8": {
        "asciivalues": [
            {"prefix": "grub_cmd", "values": [{"value": "set .+"}, {"value": r"\[.*\]"}]},
            {
                "prefix": "grub_kernel_cmdline",
                "values": [{"value": r"/vmlinuz-[ab] root=LABEL=ROOT (console=\S+)?"}],
            },
        ]
    }
}
LINES = (
    (b"grub_cmd: [ -f /first ]", b"[ -f /first ]"),
    (b"grub_cmd: set root=hd0", b"set root=hd0"),
    (
        b"kernel_cmdline: /vmlinuz-a root=LABEL=ROOT console=tty0",
        b"/vmlinuz-a root=LABEL=ROOT console=tty0",
    ),
)
ADMITTING = compile_policy(
    default_policy_text().replace(
        'release != "" && release_security_version >= 0',
        '(release != "" && release_security_version >= 0) || pcr_policy != ""',
    )
)


def grub_events(lines=LINES, files=(KERNEL, MODULE)):
    commands = [measured(8, EventType.EV_IPL, data + b"\0", content) for data, content in lines]
    return [*commands, *(measured(9, EventType.EV_IPL, b"(hd0)/x\0", one) for one in files)]


def grub_boot(boot: Boot, events) -> Boot:
    """``boot`` up to its loader, then GRUB."""
    return rebuilt(
        Boot(boot.log, None), lambda log: [*(one for one in log if one.pcr < 8), *events]
    )


def loaders(boot: Boot) -> list[str]:
    images = [e for e in tcglog.parse(boot.log).events if e.pcr in (4, 5)]
    return [e.digests[SHA256].hex() for e in images if e.type != EventType.EV_SEPARATOR]


def table_of(boot: Boot, files=(KERNEL, MODULE)) -> dict[str, object]:
    def values(digests):
        return {"binaryvalues": [{"values": [{"value": one} for one in digests]}]}

    hashed = [SHA256.digest(one).hex() for one in files]
    return {
        "4": values(loaders(boot)),
        "5": values(loaders(boot)),
        "9": values(hashed),
        **COMMANDS,
    }


def policy_of(table, name="flatcar") -> PcrPolicy:
    parsed = pcrpolicy.parse(json.dumps(table).encode())
    return PcrPolicy(name=name, version="1", source_sha256="", rules=parsed.rules)


def references(boot: Boot, *policies: PcrPolicy, **more):
    known = {"keysets": (keyset_of(boot),), "firmware": (firmware_of(boot),)}
    return build_references(pcr_policies=policies, **known, **more)


def judged(boot: Boot, events=None, table=None, **more):
    grub = grub_boot(boot, grub_events() if events is None else events)
    known = references(boot, policy_of(table or table_of(boot)), **more)
    return judge(Exchange(grub).evidence(), known, policy=ADMITTING)


def claims(appraisal, pcr):
    return [e.claimed_by for e in appraisal.boot.explanation.events if e.pcr == pcr]


def test_a_policy_explains_a_grub_boot_instead_of_a_release(boot):
    appraisal = judged(boot)
    assert codes(appraisal) == []
    assert appraisal.verdict == "trusted"
    assert (appraisal.facts.release, appraisal.facts.pcr_policy) == ("", "flatcar-1")
    assert claims(appraisal, 8) == [f"pcr-policy:flatcar-1 (8.ascii.{n})" for n in (1, 0, 2)]
    assert claims(appraisal, 9) == [f"pcr-policy:flatcar-1 (9.binary.{n})" for n in (0, 1)]


def test_the_default_policy_still_asks_for_a_release(boot):
    known = references(boot, policy_of(table_of(boot)))
    appraisal = judge(Exchange(grub_boot(boot, grub_events())).evidence(), known)
    assert appraisal.verdict == "untrusted"
    assert appraisal.facts.pcr_policy == "flatcar-1"


@pytest.mark.parametrize(
    "line",
    [
        (b"grub_cmd: reset set x", b"reset set x"),
        (b"kernel_cmdline: /vmlinuz-a root=LABEL=ROOT init=/bin/sh",) * 2,
        (b"grub_cmd: set a=b", b"reset a=b"),
        (b"other: set a=b", b"set a=b"),
        (b"grub_cmd: set a=\nb", b"set a=\nb"),
        (b"grub_cmd: set caf\xc3\xa9", b"set caf\xc3\xa9"),
        (b"grub_cmd: set " + b"a" * 4096, b"set " + b"a" * 4096),
    ],
    ids=["unanchored", "command line", "edited", "word", "line feed", "not ascii", "long"],
)
def test_a_line_that_no_pattern_matches_whole_is_unclaimed(boot, line):
    appraisal = judged(boot, grub_events((*LINES, line)))
    assert {"pcr-policy-mismatch", "unclaimed-event"} <= set(codes(appraisal))
    assert appraisal.verdict == "untrusted"
    assert appraisal.facts.pcr_policy == ""


def test_a_module_that_is_not_listed_is_no_boot_of_the_policy(boot):
    appraisal = judged(boot, grub_events(files=(KERNEL, b"evil.mod")))
    assert {"pcr-policy-mismatch", "unclaimed-event", "no-release"} <= set(codes(appraisal))
    assert appraisal.facts.pcr_policy == ""


def test_a_pcr_of_the_policy_without_any_event_of_it_is_a_mismatch(boot):
    appraisal = judged(boot, grub_events(files=()))
    assert "pcr-policy-mismatch" in codes(appraisal)
    assert appraisal.verdict == "untrusted"


def test_an_event_in_a_pcr_that_the_policy_does_not_speak_about_is_unclaimed(boot):
    extra = measured(12, EventType.EV_IPL, b"x")
    appraisal = judged(boot, [*grub_events(), extra])
    assert [code for code in codes(appraisal) if "policy" not in code] == ["unclaimed-event"]
    assert appraisal.verdict == "untrusted"


def test_a_raw_value_claims_its_pcr_and_no_other_value_does(boot):
    grub = grub_boot(boot, grub_events())
    value = grub.pcrs(SHA256)[9].hex()
    table = table_of(boot) | {"9": {"rawvalues": [{"value": value}]}}
    appraisal = judged(boot, table=table)
    assert set(claims(appraisal, 9)) == {"pcr-policy:flatcar-1 (9.raw.0)"}
    assert appraisal.verdict == "trusted"
    other = judged(boot, grub_events(files=(MODULE, KERNEL)), table=table)
    assert "pcr-policy-mismatch" in codes(other)


def test_a_digest_of_another_bank_claims_nothing(boot):
    hashed = [{"value": SHA384.digest(one).hex()} for one in (KERNEL, MODULE)]
    table = table_of(boot) | {"9": {"binaryvalues": [{"values": hashed}]}}
    assert "pcr-policy-mismatch" in codes(judged(boot, table=table))


def test_the_policy_with_the_whole_boot_is_chosen(boot):
    nearly = table_of(boot, files=(KERNEL,))
    known = references(boot, policy_of(nearly, "zz"), policy_of(table_of(boot), "aa"))
    appraisal = judge(Exchange(grub_boot(boot, grub_events())).evidence(), known, policy=ADMITTING)
    assert appraisal.facts.pcr_policy == "aa-1"


def test_claims_of_two_policies_are_never_mixed(boot):
    known = references(
        boot,
        policy_of(table_of(boot, files=(KERNEL,)), "a"),
        policy_of(table_of(boot, files=(MODULE,)), "b"),
    )
    appraisal = judge(Exchange(grub_boot(boot, grub_events())).evidence(), known, policy=ADMITTING)
    assert appraisal.verdict == "untrusted"
    assert appraisal.facts.pcr_policy == ""


def test_a_policy_adds_nothing_to_a_boot_that_a_release_describes(boot):
    extra = rebuilt(boot, lambda log: [*log, measured(8, EventType.EV_IPL, *LINES[1])])
    known = references(boot, policy_of(COMMANDS), releases=(release_of(boot),))
    assert judge(Exchange(boot).evidence(), known, policy=ADMITTING).facts.pcr_policy == ""
    appraisal = judge(Exchange(extra).evidence(), known, policy=ADMITTING)
    assert "unclaimed-event" in codes(appraisal)
    assert appraisal.verdict == "untrusted"


def test_a_revoked_release_is_not_saved_by_a_policy(boot):
    release = release_of(boot, revokes=("lab-1",))
    known = references(boot, policy_of(COMMANDS), releases=(release,))
    assert "release-revoked" in codes(judge(Exchange(boot).evidence(), known, policy=ADMITTING))


def test_text_beyond_the_budget_is_unclaimed(boot, monkeypatch):
    monkeypatch.setattr(matching, "MAX_TEXTS", 20)
    assert "unclaimed-event" in codes(judged(boot))


@pytest.mark.parametrize("pcr", [0, 7, 10, 16])
def test_a_policy_speaks_only_about_what_a_release_does(boot, pcr):
    with pytest.raises(UnusableReference):
        references(boot, policy_of({str(pcr): COMMANDS["8"]}))


@pytest.mark.parametrize("value", ["zz" * 32, "ab" * 20, ""])
def test_a_signed_policy_with_a_digest_that_is_none_is_unusable(boot, value):
    policy = policy_of(COMMANDS)
    bad = replace(policy, rules=(PcrRule(id="x", pcr=9, kind="binary", value=value),))
    with pytest.raises(UnusableReference):
        references(boot, bad)


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        (
            "google+go-attestation__attest__testdata__coreos_36_shielded_vm_no_secure_boot_eventlog",
            37,
        ),
        ("google+go-eventlog__testdata__eventlogs__tpm__rhel8-uefi.bin", 50),
    ],
    ids=["GRUB 2.06", "GRUB 2.02"],
)
@pytest.mark.usefixtures("boot")
def test_lines_of_real_boot_loaders_are_read_under_either_name(log, lines):
    parsed = tcglog.parse((CORPUS / "eventlogs" / log).read_bytes())
    events = [
        event
        for event in firmware_events(read_events(parsed, SHA256), SHA256, Quirks())
        if event.extends
    ]
    table = {
        "8": {
            "asciivalues": [
                {"prefix": "grub_cmd", "values": [{"value": r"(.|\s)+"}]},
                {"prefix": "grub_kernel_cmdline", "values": [{"value": r".*/vmlinuz.*"}]},
            ]
        }
    }
    reference = build_references(pcr_policies=(policy_of(table),)).pcr_policies[0]
    found = match_policy(reference, events, SHA256, replay(parsed, SHA256).pcrs)
    assert found.applies
    assert len(found.claims) == lines
    assert set(found.claims.values()) == {0, 1}
