"""What a gate finds when it comes back: honest remains are completed, anything else is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording import agreed, begin, gate_of, kinds, recorder_of

from catena.containers.record.batches import MAX_BATCH
from catena.containers.record.failure import RecorderStopped
from catena.containers.record.recovery import Place, boot_of, stand
from catena.containers.record.refused import NoGateStart, RecordMismatch, RecordRefused
from catena.containers.record.replay import read_record
from catena.formats import cel
from catena.ids import HashAlg
from catena.tpm.extender import open_pcr
from changed import replace
from small_records import (
    BANKS,
    BOOT,
    ZEROS,
    create,
    deny,
    gate_start,
    leave,
    policy,
    record_of,
    story,
    value_after,
)
from swtpm import needs_swtpm

STORY = story()
RECORD = record_of(*STORY)
PCR = Place(15, None)


def standing(data=RECORD, extended=STORY, place=PCR):
    return stand(data, value_after(*extended), place)


# What stands -------------------------------------------------------------------------------


def test_a_record_that_was_extended_stands():
    found = standing()
    assert (found.size, len(found.events), found.pending) == (len(RECORD), 6, ())
    assert found.values == value_after(*STORY)
    assert found.sequence.boot == BOOT


@pytest.mark.parametrize("done", range(1, 6))
def test_what_was_written_and_not_extended_is_pending(done):
    found = standing(extended=STORY[:done])
    assert tuple(one.event for one in found.pending) == STORY[done:]
    assert found.values == value_after(*STORY)


def test_a_gate_that_was_written_and_not_extended_is_pending():
    (pending,) = standing(record_of(gate_start()), ()).pending
    assert pending.event == gate_start()


def test_an_empty_record_stands_wherever_the_pcr_is():
    values = {bank: b"\7" * bank.size for bank in BANKS}
    found = stand(b"", values, PCR)
    assert (found.events, found.values, found.pending) == ((), values, ())


def test_an_event_that_was_cut_short_goes():
    ends = [one.offset for one in read_record(RECORD)][1:]
    for size in range(ends[0], len(RECORD)):
        count = sum(end <= size for end in ends)
        found = standing(RECORD[:size], STORY[:count])
        assert (found.size, len(found.events), found.pending) == (ends[count - 1], count, ())


def test_a_cut_event_behind_others_that_wait_leaves_those():
    ends = [one.offset for one in read_record(RECORD)][1:]
    found = standing(RECORD[: ends[4] - 1], STORY[:2])
    assert (found.size, len(found.pending)) == (ends[3], 2)


@pytest.mark.parametrize("count", [MAX_BATCH, MAX_BATCH + 1])
def test_what_is_pending_is_no_more_than_a_batch(count):
    before = (gate_start(), policy())
    data = record_of(*before, *[deny()] * count)
    if count <= MAX_BATCH:
        assert len(standing(data, before).pending) == count
        return
    with pytest.raises(RecordMismatch, match="further ahead"):
        standing(data, before)


def test_a_record_that_would_begin_again_from_its_first_event_is_refused():
    with pytest.raises(RecordMismatch, match="further ahead"):
        standing(extended=())


# What does not -----------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_refused():
    for bit in range(0, len(RECORD) * 8, 5):
        wire = bytearray(RECORD)
        wire[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordRefused):
            standing(bytes(wire))


def test_a_record_without_its_last_events_is_refused():
    ends = [one.offset for one in read_record(RECORD)]
    for end in ends[1:]:
        for size in (end, end + 20):
            with pytest.raises(RecordMismatch, match="none of"):
                standing(RECORD[:size])


def test_a_record_with_an_event_left_out_is_refused():
    for gone in range(1, len(STORY)):
        with pytest.raises(RecordRefused):
            standing(record_of(*STORY[:gone], *STORY[gone + 1 :]))


def test_an_event_in_place_of_another_is_refused():
    other = (*STORY[:4], deny(message="another reason"), *STORY[5:])
    with pytest.raises(RecordMismatch):
        standing(record_of(*other))


def test_a_bank_that_tells_another_story_is_refused():
    values = value_after(*STORY) | {HashAlg.SHA384: value_after(*STORY[:5])[HashAlg.SHA384]}
    with pytest.raises(RecordMismatch):
        stand(RECORD, values, PCR)


def test_a_bank_more_or_less_is_refused():
    values = value_after(*STORY)
    more = values | {HashAlg.SHA1: bytes(20)}
    less = {HashAlg.SHA256: values[HashAlg.SHA256]}
    for found in (more, less):
        with pytest.raises(RecordMismatch):
            stand(RECORD, found, PCR)


@pytest.mark.parametrize("place", [Place(14, None), Place(None, 15)])
def test_a_record_about_another_pcr_is_refused(place):
    with pytest.raises(RecordMismatch, match="another PCR"):
        standing(place=place)


def test_a_pcr_that_something_else_extended_is_refused():
    values = value_after(*STORY)
    foreign = {bank: bank.digest(value + bytes(bank.size)) for bank, value in values.items()}
    with pytest.raises(RecordMismatch):
        stand(RECORD, foreign, PCR)


@given(st.binary(max_size=4000))
def test_garbage_stands_only_as_nothing(data):
    try:
        found = stand(data, ZEROS, PCR)
    except RecordRefused:
        return
    assert found.events == ()


@settings(max_examples=50)
@given(st.lists(st.sampled_from((create(5), deny(5), leave(5))), max_size=20), st.data())
def test_wherever_a_batch_is_interrupted_nothing_extended_is_lost(events, data):
    before = (gate_start(), policy(), create())
    batch = [one for one in events if not isinstance(one, type(leave()))]
    whole = record_of(*before, *batch)
    size = data.draw(st.integers(len(record_of(*before)), len(whole)))
    kept = read_record(whole[: cel.complete_tlv(whole[:size])])
    extended = data.draw(st.integers(len(before), len(kept)))
    found = standing(whole[:size], [one.event for one in kept[:extended]])
    assert found.values == value_after(*(one.event for one in kept))


# Boots -------------------------------------------------------------------------------------


def test_the_boot_of_a_record_is_known_from_its_first_event():
    first = len(record_of(STORY[0]))
    assert boot_of(RECORD) == BOOT
    assert boot_of(RECORD[:first] + b"\xff" * 100) == BOOT
    assert all(boot_of(RECORD[:size]) is None for size in range(first))


def test_a_record_that_begins_otherwise_is_of_no_boot():
    with pytest.raises(NoGateStart):
        boot_of(record_of(deny()))
    with pytest.raises(RecordMismatch):
        boot_of(b"\xff" * 1000)


# With a TPM --------------------------------------------------------------------------------


def damage(path, change):
    path.write_bytes(change(path.read_bytes()))


def edited(wire):
    return wire.replace(b'"publisher":"acme"', b'"publisher":"evil"')


def consistently_edited(wire):
    """An edit with the right digests beside it: only the TPM knows better."""
    events = [one.event for one in read_record(wire)]
    events[2] = replace(events[2], publisher="evil")
    return record_of(*events)


def without_last(wire):
    return wire[: read_record(wire)[-1].offset]


@pytest.mark.tpm
@needs_swtpm
@pytest.mark.parametrize("change", [edited, consistently_edited, without_last])
def test_a_changed_record_keeps_the_gate_from_starting(path, machine, change):
    with gate_of(path, machine.tcti) as recorder:
        for event in STORY[2:]:
            recorder.append(event)
    damage(path, change)
    changed = path.read_bytes()
    with recorder_of(path, machine.tcti) as recorder:
        with pytest.raises(RecordMismatch):
            recorder.recover()
        with pytest.raises(RecorderStopped):
            recorder.append(deny())
    assert path.read_bytes() == changed


@pytest.mark.tpm
@needs_swtpm
def test_a_removed_record_cannot_pass_for_a_first_one(path, machine):
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create())
    path.unlink()
    with recorder_of(path, machine.tcti) as recorder:
        begin(recorder)
        events = agreed(path, recorder._tpm)
    # The gate cannot know; it says what it found, and no boot explains that value.
    assert events[0].event.banks != {bank.value: value.hex() for bank, value in ZEROS.items()}


@pytest.mark.tpm
@needs_swtpm
def test_an_extension_beside_the_gate_keeps_the_next_one_from_starting(path, machine):
    with gate_of(path, machine.tcti) as recorder:
        recorder._tpm.extend({bank: bank.digest(b"mine") for bank in BANKS})
        recorder.append(deny())
    with recorder_of(path, machine.tcti) as recorder, pytest.raises(RecordMismatch):
        recorder.recover()


@pytest.mark.tpm
@needs_swtpm
@pytest.mark.parametrize("count", [1, MAX_BATCH, MAX_BATCH + 1])
def test_events_written_by_hand_are_taken_as_a_batch_at_most(path, machine, count):
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create())
    by_hand = [one.event for one in read_record(path.read_bytes())]
    by_hand += [deny(1e9)] * count
    path.write_bytes(record_of(*by_hand))
    with recorder_of(path, machine.tcti) as recorder:
        if count > MAX_BATCH:
            with pytest.raises(RecordMismatch):
                recorder.recover()
            return
        found = recorder.recover()
        assert (found.events, found.extended) == (3 + count, count)
        assert kinds(agreed(path, recorder._tpm))[3:] == ["deny"] * count


@pytest.mark.tpm
@needs_swtpm
def test_a_tpm_that_does_not_answer_keeps_the_gate_from_starting(path, machine):
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create())
    with open_pcr(machine.tcti) as tpm:
        banks = tpm.banks()
    with recorder_of(path, machine.tcti) as recorder:
        assert recorder._banks == banks
        machine.stop()
        with pytest.raises(Exception, match="TPM"):
            recorder.recover()
        with pytest.raises(RecorderStopped):
            recorder.append(deny())


@pytest.mark.tpm
@needs_swtpm
def test_nothing_is_extended_that_is_not_durable(path, machine, monkeypatch):
    seen = []
    real_sync = os.fdatasync
    monkeypatch.setattr("os.fdatasync", lambda file: (seen.append("sync"), real_sync(file))[0])

    def watched(recorder):
        real = recorder._tpm.extend
        recorder._tpm.extend = lambda digests: (seen.append("extend"), real(digests))[1]

    with gate_of(path, machine.tcti) as recorder:
        seen.clear()
        watched(recorder)
        recorder.append(create())
        assert seen == ["sync", "extend"]
        events = [one.event for one in agreed(path, recorder._tpm)]
    path.write_bytes(record_of(*events, deny(1e9), deny(1e9)))
    seen.clear()
    with recorder_of(path, machine.tcti) as recorder:
        watched(recorder)
        recorder.recover()
    assert seen == ["sync", "extend", "extend"]
