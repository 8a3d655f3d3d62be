"""Step i: a reference applies as a whole or not at all."""

from __future__ import annotations

import msgspec
import pytest
from forged import (
    SHA1,
    SHA256,
    SHA384,
    Boot,
    Exchange,
    codes,
    corpus_boot,
    firmware_of,
    ima_entry,
    judge,
    keyset_of,
    measured,
    rebuilt,
    release_of,
)

from catena.appraise.reference import UnusableReference, build_references, versioned
from catena.formats import ima, tcglog
from catena.formats.references import ExpectedEvent
from catena.formats.tcglog import EventType
from catena.measure.replay import boot_aggregate, replay
from changed import replace


@pytest.fixture
def active(boot):
    """References of boot B with some of them replaced."""

    def make(**changes):
        documents = {
            "releases": (release_of(boot),),
            "keysets": (keyset_of(boot),),
            "firmware": (firmware_of(boot),),
        }
        return build_references(**{**documents, **changes})

    return make


def appraised(boot: Boot, references):
    return judge(Exchange(boot).evidence(), references)


def swapped(pcr: int, first: int, second: int):
    """Exchanges two events of a PCR."""

    def change(events):
        of_pcr = [i for i, event in enumerate(events) if event.pcr == pcr]
        changed = list(events)
        a, b = of_pcr[first], of_pcr[second]
        changed[a], changed[b] = events[b], events[a]
        return changed

    return change


def test_a_boot_that_every_kind_describes_is_trusted(boot, active):
    appraisal = appraised(boot, active())
    assert (appraisal.verdict, appraisal.release) == ("trusted", "lab-1")
    assert (appraisal.facts.key_set, appraisal.facts.firmware) == ("acme", "ovmf-2022.11")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("releases", "no-release"),
        ("keysets", "no-key-set"),
        ("firmware", "no-firmware-capture"),
    ],
)
def test_each_kind_of_reference_is_needed(boot, active, kind, code):
    appraisal = appraised(boot, active(**{kind: ()}))
    assert appraisal.verdict == "untrusted"
    assert code in codes(appraisal)
    assert "unclaimed-event" in codes(appraisal)


def test_without_any_reference_only_the_specification_claims(boot):
    appraisal = appraised(boot, build_references())
    assert codes(appraisal)[:3] == ["no-release", "no-key-set", "no-firmware-capture"]
    claimed = {event.claimed_by for event in appraisal.events} - {None}
    assert claimed
    assert all(claim.startswith("rule:") for claim in claimed)


def test_an_order_that_differs_is_no_match_though_every_event_is_claimed(boot, active):
    appraisal = appraised(rebuilt(boot, swapped(11, 0, 2)), active())
    assert appraisal.facts.unclaimed_events == 0
    assert "release-mismatch" in codes(appraisal)
    assert "PCR 11" in appraisal.reasons[0].message
    assert appraisal.release is None


def test_an_event_measured_more_often_than_expected_is_unclaimed(boot, active):
    def again(events):
        return [*events, next(event for event in events if event.pcr == 11)]

    appraisal = appraised(rebuilt(boot, again), active())
    assert {"release-mismatch", "unclaimed-event"} <= set(codes(appraisal))
    (unclaimed,) = (event for event in appraisal.events if event.claimed_by is None)
    assert "not this often" in unclaimed.nearest


def test_an_expected_event_that_did_not_happen_is_no_match(boot, active):
    """Also where no PCR value is stated that would show it."""
    release = release_of(boot)
    never = ExpectedEvent(id="addon", pcr=13, what="", digests={"sha256": "ab" * 32})
    release = msgspec.structs.replace(release, events=(*release.events, never))
    appraisal = appraised(boot, active(releases=(release,)))
    assert codes(appraisal)[0] == "release-mismatch"
    assert "missing addon" in appraisal.reasons[0].message


def test_a_stated_pcr_that_differs_is_no_match_though_every_event_is_there(boot, active):
    release = release_of(boot)
    pcrs = {"sha256": {**release.pcrs["sha256"], "13": "ab" * 32}}
    appraisal = appraised(boot, active(releases=(msgspec.structs.replace(release, pcrs=pcrs),)))
    assert codes(appraisal)[0] == "release-mismatch"
    assert appraisal.reasons[0].pcr == 13


def test_a_release_that_states_nothing_for_the_bank_is_no_match(boot, active):
    release = release_of(boot)
    for pcrs in ({}, {"sha384": release.pcrs["sha384"]}, {"sha256": {}}):
        changed = msgspec.structs.replace(release, pcrs=pcrs)
        appraisal = appraised(boot, active(releases=(changed,)))
        assert codes(appraisal)[0] == "release-mismatch"
        assert "no PCR values for the quoted bank" in appraisal.reasons[0].message


def test_a_release_below_the_floor_is_not_admitted(boot, active):
    assert appraised(boot, active(floor=1)).verdict == "trusted"
    appraisal = appraised(boot, active(floor=2))
    assert codes(appraisal) == ["release-below-floor"]


@pytest.mark.parametrize("name", ["lab", "lab-1"])
def test_a_revoked_release_is_not_admitted(boot, active, name):
    newer = release_of(corpus_boot("C_sb_own_sdboot_uki"), version="2", revokes=(name,))
    appraisal = appraised(boot, active(releases=(release_of(boot), newer)))
    assert codes(appraisal) == ["release-revoked"]


def test_of_two_releases_that_apply_the_admissible_one_counts(boot, active):
    first = release_of(boot)
    second = release_of(boot, version="2", security_version=5, revokes=("lab-1",))
    for releases in ((first, second), (second, first)):
        appraisal = appraised(boot, active(releases=releases, floor=5))
        assert (appraisal.verdict, appraisal.release) == ("trusted", "lab-2")


def test_events_of_two_releases_are_no_release(boot, active):
    """Each event is known, but the mixture was never released."""
    other = release_of(corpus_boot("G_nosb_sdboot_type1"), version="2")
    loader = next(event for event in other.events if event.id == "uki")

    def mixed(events):
        alien = measured(4, EventType.EV_EFI_BOOT_SERVICES_APPLICATION, b"")
        digest = bytes.fromhex(loader.digests["sha256"])
        return [*events, replace(alien, digests={**alien.digests, SHA256: digest})]

    appraisal = appraised(rebuilt(boot, mixed), active(releases=(release_of(boot), other)))
    assert {"release-mismatch", "unclaimed-event"} <= set(codes(appraisal))
    sentence = next(event.nearest for event in appraisal.events if event.nearest)
    assert "release lab-2 (uki) has this digest" in sentence
    assert "nearest to release lab-1" in sentence


def test_a_digest_counts_only_in_its_own_pcr(boot, active):
    """The UKI's digest in PCR 12 is not the UKI in PCR 4."""

    def moved(events):
        image = next(event for event in events if event.pcr == 11)
        return [*events, replace(image, pcr=12)]

    appraisal = appraised(rebuilt(boot, moved), active())
    unclaimed = [event for event in appraisal.events if event.claimed_by is None]
    assert [event.pcr for event in unclaimed] == [12]
    assert "in PCR 11 has this digest" in unclaimed[0].nearest


def test_a_retyped_event_is_judged_by_its_digest(boot, active):
    """Types are covered by no digest: changing one changes no claim."""

    def retyped(events):
        return [
            replace(event, type=EventType.EV_POST_CODE) if event.pcr == 11 else event
            for event in events
        ]

    assert appraised(rebuilt(boot, retyped), active()).verdict == "trusted"


def test_ima_entries_are_claimed_in_any_order_and_number(boot, active):
    release = release_of(boot)
    unused = ExpectedEvent(id="/lib/unused.ko", pcr=10, what="", digests={"sha256": "ab" * 32})
    release = msgspec.structs.replace(release, events=(unused, *release.events))
    assert appraised(boot, active(releases=(release,))).verdict == "trusted"


def test_an_unknown_ima_entry_is_unclaimed(boot, active):
    entry = ima_entry(b"sha256:\0" + bytes(32), b"/bin/\x1b[2Jevil\n\0", b"")
    appraisal = appraised(Boot(boot.log, boot.ima + entry), active())
    reason = next(reason for reason in appraisal.reasons if reason.code == "unclaimed-event")
    assert reason.pcr == 10
    assert "evil" in reason.message
    assert reason.message.isprintable()


def test_an_ima_violation_is_unclaimed(boot, active):
    entry = ima_entry(b"sha256:\0" + bytes(32), b"/bin/x\0", b"", violation=True)
    appraisal = appraised(Boot(boot.log, boot.ima + entry), active())
    assert "violation" in appraisal.events[-1].description
    assert appraisal.events[-1].claimed_by is None


def test_a_boot_aggregate_of_another_boot_is_unclaimed(boot, active):
    other = corpus_boot("A_nosb_uki")
    appraisal = appraised(Boot(boot.log, other.ima), active())
    first = next(event for event in appraisal.events if event.pcr == 10)
    assert "boot_aggregate" in first.description
    assert first.claimed_by is None


def test_a_boot_aggregate_counts_only_as_the_first_entry(boot, active):
    first = ima.encode(ima.parse(boot.ima)[0])
    appraisal = appraised(Boot(boot.log, boot.ima + first), active())
    assert "boot_aggregate" in appraisal.events[-1].description
    assert appraisal.events[-1].claimed_by is None


def test_a_boot_aggregate_with_more_fields_is_unclaimed(boot, active):
    first, *rest = ima.parse(boot.ima)
    signed = ima_entry(first.fields[0], first.fields[1], b"signature")
    log = signed + b"".join(map(ima.encode, rest))
    assert "unclaimed-event" in codes(appraised(Boot(boot.log, log), active()))


def test_a_boot_aggregate_of_a_bank_that_the_log_lacks_is_unclaimed(boot, active):
    first = ima.parse(boot.ima)[0]
    sha512 = ima_entry(b"sha512:\0" + bytes(64), first.fields[1], b"")
    appraisal = appraised(Boot(boot.log, sha512), active())
    assert "unclaimed-event" in codes(appraisal)


def test_a_boot_aggregate_may_be_of_another_bank_than_the_quoted_one(boot, active):
    log = tcglog.parse(boot.log)
    for bank in (SHA1, SHA384):
        aggregate = boot_aggregate(replay(log, bank).pcrs, bank)
        entry = ima_entry(f"{bank}:\0".encode() + aggregate, b"boot_aggregate\0", b"")
        assert appraised(Boot(boot.log, entry), active()).facts.unclaimed_events == 0


# documents that could never be compared


def change_event(document, **changes):
    first, *rest = document.events
    changed = (msgspec.structs.replace(first, **changes), *rest)
    return msgspec.structs.replace(document, events=changed)


@pytest.mark.parametrize("pcr", [0, 7, 16, 23, -1])
def test_a_release_speaks_only_about_its_own_pcrs(boot, active, pcr):
    with pytest.raises(UnusableReference):
        active(releases=(change_event(release_of(boot), pcr=pcr),))


def test_a_release_may_insist_on_the_keys_it_runs_under(boot, active):
    release, keys = release_of(boot), keyset_of(boot)
    for value, verdict in ((keys.pcrs["sha256"]["7"], "trusted"), ("ab" * 32, "untrusted")):
        pcrs = {"sha256": {**release.pcrs["sha256"], "7": value}}
        changed = msgspec.structs.replace(release, pcrs=pcrs)
        assert appraised(boot, active(releases=(changed,))).verdict == verdict


def test_a_key_set_and_a_capture_speak_only_about_their_own_pcrs(boot, active):
    with pytest.raises(UnusableReference):
        active(keysets=(change_event(keyset_of(boot), pcr=4),))
    with pytest.raises(UnusableReference):
        active(firmware=(change_event(firmware_of(boot), pcr=4),))


@pytest.mark.parametrize("digest", ["", "AB" * 32, "ab" * 31, "zz" * 32])
def test_an_expected_digest_must_be_one(boot, active, digest):
    with pytest.raises(UnusableReference):
        active(releases=(change_event(release_of(boot), digests={"sha256": digest}),))


@pytest.mark.parametrize("table", [{"x": "00" * 32}, {"4": "zz"}, {"4": "00"}, {"10": "00" * 32}])
def test_a_stated_pcr_must_be_one(boot, active, table):
    release = msgspec.structs.replace(release_of(boot), pcrs={"sha256": table})
    with pytest.raises(UnusableReference):
        active(releases=(release,))


def test_a_version_is_not_said_twice():
    assert versioned("lab", "1") == "lab-1"
    assert versioned("lab-1", "1") == "lab-1"
