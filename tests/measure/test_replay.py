from __future__ import annotations

import hashlib

import pytest

from catena.formats import ima
from catena.formats.ima import replay_digest
from catena.formats.tcglog import STARTUP_LOCALITY, Event, EventLog, EventType
from catena.ids import PCR_COUNT, QUOTED_PCRS, HashAlg
from catena.measure.ima_replay import UnreachedImaValue, at_boot, reach
from catena.measure.replay import boot_aggregate, replay, replay_ima, reset_value
from changed import replace

SHA256 = HashAlg.SHA256


def test_replay_of_a_boot_equals_what_the_tpm_held(boot):
    for bank in boot.log.banks:
        played = replay(boot.log, bank)
        firmware = [pcr for pcr in QUOTED_PCRS if pcr != 10]
        assert all(played.pcrs[pcr] == boot.pcr(pcr, bank) for pcr in firmware)


def test_replay_of_the_ima_log_equals_what_the_tpm_held(boot):
    for bank in (HashAlg.SHA1, HashAlg.SHA256):
        assert replay_ima(boot.ima, bank) == {10: boot.pcr(10, bank)}


def test_kernel_without_a_banks_hash_extends_padded_sha1_which_is_not_accepted(boot):
    bank = HashAlg.SHA384
    value = bytes(bank.size)
    for entry in boot.ima:
        value = bank.digest(value + replay_digest(entry, HashAlg.SHA1).ljust(bank.size, b"\0"))
    assert boot.pcr(10, bank) == value
    log = b"".join(map(ima.encode, boot.ima))
    with pytest.raises(UnreachedImaValue):
        reach(at_boot(bank), log, value)


def test_boot_aggregate_binds_the_ima_log_to_the_boot(boot):
    played = replay(boot.log, SHA256)
    assert boot.ima[0].file_digest == ("sha256", boot_aggregate(played.pcrs, SHA256))


def test_boot_aggregate_of_sha1_covers_eight_pcrs():
    pcrs = {pcr: bytes([pcr]) * 20 for pcr in range(10)}
    expected = hashlib.sha1(b"".join(pcrs[pcr] for pcr in range(8))).digest()
    assert boot_aggregate(pcrs, HashAlg.SHA1) == expected


def test_ima_entries_of_another_pcr_leave_pcr_10_alone(boot):
    elsewhere = tuple(replace(entry, pcr=12) for entry in boot.ima)
    assert replay_ima(elsewhere, SHA256) == {12: boot.pcr(10)}


def test_every_pcr_has_a_value_and_untouched_ones_their_reset_value(log):
    played = replay(log, SHA256)
    assert sorted(played.pcrs) == list(range(PCR_COUNT))
    for pcr in set(range(PCR_COUNT)) - played.extended:
        assert played.pcrs[pcr] == reset_value(pcr, SHA256)
    assert reset_value(17, SHA256) == b"\xff" * 32
    assert reset_value(23, SHA256) == bytes(32)


def test_no_action_never_extends(log, edit, measured):
    ghost = replace(measured(7, EventType.EV_SEPARATOR, b"x"), type=EventType.EV_NO_ACTION)
    assert replay(edit(log, [*log.events, ghost]), SHA256).pcrs == replay(log, SHA256).pcrs


@pytest.mark.parametrize("locality", [0, 3, 4])
def test_startup_locality_seeds_pcr_0_of_every_bank(log, edit, no_action, locality):
    told = no_action(STARTUP_LOCALITY + bytes([locality]))
    seeded = edit(log, [log.events[0], told, *log.events[1:]])
    first = next(event for event in log.events[1:] if event.pcr == 0)
    for bank in log.banks:
        played = replay(seeded, bank)
        assert played.startup_locality == locality
        assert (played.pcrs[0] == replay(log, bank).pcrs[0]) == (locality == 0)
        alone = EventLog("tcg2", log.banks, (told, first))
        start = bytes(bank.size - 1) + bytes([locality])
        assert replay(alone, bank).pcrs[0] == bank.digest(start + first.digests[bank])


def test_hcrtm_event_means_locality_4(measured):
    event = measured(0, EventType.EV_EFI_HCRTM_EVENT, b"HCRTM")
    played = replay(EventLog("tcg2", (SHA256,), (event,)), SHA256)
    assert played.startup_locality == 4
    assert played.pcrs[0] == SHA256.digest(bytes(31) + b"\4" + event.digests[SHA256])


def test_startup_locality_without_a_value_seeds_nothing(no_action):
    log = EventLog("tcg2", (SHA256,), (no_action(STARTUP_LOCALITY),))
    assert replay(log, SHA256).startup_locality is None


def test_event_without_a_digest_in_the_bank_leaves_the_bank_alone():
    event = Event(0, 4, EventType.EV_IPL, {HashAlg.SHA1: b"d" * 20}, b"", 0)
    log = EventLog("tcg2", (HashAlg.SHA1, SHA256), (event,))
    assert replay(log, SHA256).extended == frozenset()
    assert replay(log, HashAlg.SHA1).extended == {4}


def test_edited_digest_changes_the_replay(log, edit):
    last = log.events[-1]
    forged = replace(last, digests={**last.digests, SHA256: b"f" * 32})
    changed = replay(edit(log, [*log.events[:-1], forged]), SHA256).pcrs
    differing = {pcr for pcr in changed if changed[pcr] != replay(log, SHA256).pcrs[pcr]}
    assert differing == {last.pcr}


def test_swapped_events_of_one_pcr_change_the_replay(log, edit):
    events = list(log.events)
    events[5], events[6] = events[6], events[5]
    assert events[5].pcr == events[6].pcr == 7
    assert replay(edit(log, events), SHA256).pcrs[7] != replay(log, SHA256).pcrs[7]
