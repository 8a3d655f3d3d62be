"""The sentences that a person reads about an unclaimed event."""

from __future__ import annotations

from forged import Exchange, codes, corpus_boot, judge, measured, rebuilt, references_of

from catena.appraise.explanation import MAX_UNCLAIMED_REASONS
from catena.formats.efi import EFI_GLOBAL_VARIABLE, VariableData
from catena.formats.tcglog import EventType
from changed import replace


def appraised(boot, references):
    return judge(Exchange(boot).evidence(), references)


def reason(appraisal, code="unclaimed-event"):
    return next(reason for reason in appraisal.reasons if reason.code == code)


def replaced(pcr, kind, make):
    """Replaces the first event of a kind in a PCR by another measurement."""

    def change(events):
        at = next(i for i, e in enumerate(events) if e.pcr == pcr and e.type == kind)
        return [*events[:at], make(events[at]), *events[at + 1 :]]

    return change


def test_every_event_is_listed_in_order_with_a_claim_or_the_nearest(boot, references):
    for name in ("B_sb_own_uki", "C_sb_own_sdboot_uki", "G_nosb_sdboot_type1"):
        events = appraised(corpus_boot(name), references).events
        assert [event.index for event in events] == list(range(len(events)))
        for event in events:
            assert (event.claimed_by is None) != (event.nearest is None)
            assert event.description.isprintable()
            assert len(event.description) <= 300


def test_claims_name_their_reference_and_rule(boot, references):
    claims = {event.claimed_by for event in appraised(boot, references).events}
    assert claims >= {
        "release:lab-1 (uki)",
        "keyset:acme (db)",
        "firmware:ovmf-2022.11 (#3)",
        "rule:tcg-pfp/separator",
        "rule:tcg-pfp/calling-boot-option",
        "rule:tcg-pfp/exit-boot-invocation",
        "rule:tcg-pfp/exit-boot-success",
        "rule:tcg-pfp/no-action",
        "rule:ima/boot-aggregate",
    }


def test_secure_boot_that_is_off_is_said_by_its_variable(boot, references):
    off = VariableData(EFI_GLOBAL_VARIABLE, "SecureBoot", b"\0").encode()
    kind = EventType.EV_EFI_VARIABLE_DRIVER_CONFIG
    appraisal = appraised(
        rebuilt(boot, replaced(7, kind, lambda _: measured(7, kind, off))), references
    )
    assert "SecureBoot variable is off: key set acme expects on" in reason(appraisal).message
    assert "SecureBoot" in reason(appraisal, "policy:secure-boot").message
    assert not appraisal.facts.secure_boot


def test_secure_boot_that_is_off_is_said_even_without_any_key(references):
    """Boot A: firmware in setup mode, nothing of the key set in common."""
    appraisal = appraised(corpus_boot("A_nosb_uki"), references)
    messages = [reason.message for reason in appraisal.reasons]
    assert any("SecureBoot variable is off: key set acme expects on" in m for m in messages)
    assert {"no-key-set", "policy:secure-boot", "policy:user-mode"} <= set(codes(appraisal))


def test_a_foreign_key_in_db_is_said_by_its_variable(boot, references):
    def other_db(events):
        return [
            measured(7, event.type, event.data + b"x")
            if event.pcr == 7 and b"d\0b\0" in event.data[:40] and event.index == 7
            else event
            for event in events
        ]

    appraisal = appraised(rebuilt(boot, other_db), references)
    assert "key-set-mismatch" in codes(appraisal)
    assert reason(appraisal).pcr == 7


def test_a_loader_that_is_in_no_release_is_the_ukis_slot(boot, references):
    kind = EventType.EV_EFI_BOOT_SERVICES_APPLICATION

    def other(event):
        return replace(measured(4, kind, b"another image"), data=event.data)

    appraisal = appraised(rebuilt(boot, replaced(4, kind, other)), references)
    found = reason(appraisal)
    assert "same slot as release lab-1 (uki), digest differs" in found.message
    assert (found.pcr, len(found.digest)) == (4, 64)
    assert "release-mismatch" in codes(appraisal)


def test_another_loader_in_a_real_boot_is_unclaimed(references):
    """Boot C starts systemd-boot first: signed with the same db, in no release."""
    appraisal = appraised(corpus_boot("C_sb_own_sdboot_uki"), references)
    unclaimed = [event for event in appraisal.events if event.claimed_by is None]
    assert [event.pcr for event in unclaimed] == [4, 12]
    assert appraisal.facts.command_line


def test_injected_credentials_are_unclaimed(references):
    appraisal = appraised(corpus_boot("D_sb_own_uki_creds"), references)
    assert {event.pcr for event in appraisal.events if event.claimed_by is None} >= {12, 13}
    assert "no reference expects anything in PCR 13" in str(appraisal.reasons)


def test_a_boot_with_the_same_measurements_is_the_same_boot(boot, references):
    """Boot I injects a command line by SMBIOS, which stub 252 ignores with Secure Boot on."""
    same = corpus_boot("I_sb_own_uki_smbios")
    assert same.values == boot.values
    assert appraised(same, references).verdict == "trusted"


def test_reasons_are_bounded(boot, references):
    flood = [measured(12, EventType.EV_IPL, b"%d" % n) for n in range(300)]
    appraisal = appraised(rebuilt(boot, lambda events: [*events, *flood]), references)
    assert codes(appraisal).count("unclaimed-event") == MAX_UNCLAIMED_REASONS
    assert "236 more" in reason(appraisal, "unclaimed-events-omitted").message
    assert appraisal.facts.unclaimed_events == 300


def test_text_of_an_attacker_cannot_leave_its_line(boot, references):
    nasty = "\x1b[2J\n\u202e trusted\0".encode("utf-16-le")
    appraisal = appraised(
        rebuilt(boot, lambda events: [*events, measured(12, EventType.EV_IPL, nasty)]), references
    )
    assert all(r.message.isprintable() for r in appraisal.reasons)


def test_references_of_another_boot_do_not_fit(boot):
    other = references_of(corpus_boot("C_sb_own_sdboot_uki"))
    appraisal = appraised(boot, other)
    assert appraisal.verdict == "untrusted"
    assert "release-mismatch" in codes(appraisal)
    assert "key-set-mismatch" not in codes(appraisal)
