from __future__ import annotations

import pytest
from hostile import bit_flips

from catena.containers.record.refused import (
    NoGateStart,
    NoPolicyInForce,
    NoSuchContainer,
    OtherBoot,
    RecordMismatch,
    TimeWentBack,
)
from catena.containers.record.replay import check_sequence, read_record, replay
from catena.errors import FormatError
from catena.formats import cel
from catena.formats.containerlog import encode, to_record
from catena.ids import HashAlg
from changed import replace
from small_records import (
    BANKS,
    IMAGE,
    ZEROS,
    create,
    deny,
    execute,
    gate_start,
    leave,
    policy,
    record_of,
    story,
    value_after,
)

STORY = record_of(*story())


def sequence_of(*events):
    return check_sequence(read_record(record_of(*events)))


def test_a_record_gives_its_events_back():
    events = read_record(STORY)
    assert tuple(one.event for one in events) == story()
    assert {(one.pcr, one.nv_index) for one in events} == {(15, None)}
    assert [one.index for one in events] == list(range(len(events)))


def test_a_record_of_an_nv_index_gives_its_events_back():
    events = read_record(record_of(*story(), banks=BANKS[:1], pcr=None, nv_index=0x01800001))
    assert {(one.pcr, one.nv_index) for one in events} == {(None, 0x01800001)}


@pytest.mark.parametrize("bank", BANKS)
def test_a_record_replays_to_what_extending_its_events_gives(bank):
    values = replay(read_record(STORY), bank)
    for count, value in enumerate(values, 1):
        assert value == value_after(*story()[:count])[bank]


def test_a_record_replays_from_where_others_left_the_pcr():
    start = {bank: b"\7" * bank.size for bank in BANKS}
    events = read_record(record_of(gate_start(values=start), policy()))
    check_sequence(events)
    wanted = value_after(gate_start(values=start), policy(), start=start)
    assert {bank: replay(events, bank, start[bank])[-1] for bank in BANKS} == wanted


def test_a_bank_that_is_not_in_the_record_does_not_replay():
    with pytest.raises(RecordMismatch, match="no such bank"):
        replay(read_record(STORY), HashAlg.SHA1)


def test_a_flipped_bit_anywhere_is_refused():
    for wire in bit_flips(STORY, step=5):
        with pytest.raises((FormatError, RecordMismatch)):
            read_record(wire)


def test_a_record_cut_anywhere_but_between_events_is_malformed():
    ends = {one.offset for one in read_record(STORY)}
    for size in range(len(STORY)):
        if size in ends:
            read_record(STORY[:size])
            continue
        with pytest.raises(FormatError):
            read_record(STORY[:size])


def with_second(**changes):
    """A record of two events, the second of which has something else about it."""
    first = to_record(0, encode(gate_start()), BANKS, pcr=15, nv_index=None)
    second = to_record(1, encode(policy()), BANKS, pcr=15, nv_index=None)
    return cel.encode_tlv(first) + cel.encode_tlv(replace(second, **changes))


def test_a_content_with_another_digest_is_refused():
    wrong = {bank: bank.digest(b"other") for bank in BANKS}
    for bank in BANKS:
        good = {one: one.digest(encode(policy())) for one in BANKS}
        with pytest.raises(RecordMismatch, match="altered"):
            read_record(with_second(digests=good | {bank: wrong[bank]}))


@pytest.mark.parametrize("banks", [(), BANKS[:1], (*BANKS, HashAlg.SHA1)])
def test_other_banks_in_a_later_record_are_refused(banks):
    digests = {bank: bank.digest(encode(policy())) for bank in banks}
    with pytest.raises(RecordMismatch, match="other banks"):
        read_record(with_second(digests=digests))


def test_a_record_without_any_bank_is_refused():
    with pytest.raises(RecordMismatch, match="banks"):
        read_record(record_of(gate_start(), banks=()))


@pytest.mark.parametrize("place", [{"pcr": 14}, {"pcr": None, "nv_index": 15}])
def test_a_later_record_about_another_pcr_is_refused(place):
    with pytest.raises(RecordMismatch, match="another PCR"):
        read_record(with_second(**place))


def test_another_kind_of_content_is_malformed():
    with pytest.raises(FormatError, match="not about containers"):
        read_record(with_second(content_type="4"))


# The order of events -----------------------------------------------------------------------


def test_the_story_leaves_nothing_running():
    sequence = sequence_of(*story())
    assert sequence.live == {}


def test_what_has_not_exited_is_running():
    assert sequence_of(*story()[:4]).live == {"web": IMAGE}


@pytest.mark.parametrize("events", [(), (policy(),), (create(),), (deny(),)])
def test_a_record_that_does_not_begin_with_a_gate_is_refused(events):
    with pytest.raises(NoGateStart):
        sequence_of(*events)


@pytest.mark.parametrize("banks", [BANKS[:1], (*BANKS, HashAlg.SHA1)])
def test_a_first_gate_that_found_other_banks_is_refused(banks):
    found = {bank: bytes(bank.size) for bank in banks}
    with pytest.raises(RecordMismatch, match="other banks"):
        sequence_of(gate_start(values=found))


@pytest.mark.parametrize(
    "banks", [{"sha3": "00" * 32}, {"sha256": "00" * 48}, {"sha256": "00" * 20}]
)
def test_a_gate_that_found_no_bank_is_refused(banks):
    with pytest.raises(RecordMismatch, match="no PCR bank"):
        sequence_of(replace(gate_start(), banks=banks))


def test_a_later_gate_finds_what_the_record_replays_to():
    before = (gate_start(), policy(), create())
    again = gate_start(6, value_after(*before))
    assert sequence_of(*before, again, policy(7), execute(8)).live == {"web": IMAGE}


@pytest.mark.parametrize("values", [ZEROS, {bank: b"\1" * bank.size for bank in BANKS}])
def test_a_later_gate_that_found_something_else_is_refused(values):
    with pytest.raises(RecordMismatch, match="another PCR"):
        sequence_of(gate_start(), policy(), gate_start(6, values))


def test_a_later_gate_of_another_boot_is_refused():
    before = (gate_start(), policy())
    with pytest.raises(OtherBoot):
        sequence_of(*before, gate_start(6, value_after(*before), boot="other"))


def test_an_event_older_than_the_one_before_is_refused():
    with pytest.raises(TimeWentBack):
        sequence_of(gate_start(5), policy(4.999))


def test_events_at_one_time_are_in_order():
    sequence_of(gate_start(5), policy(5), create(5), leave(5))


@pytest.mark.parametrize("event", [create(5), execute(5)])
def test_nothing_is_allowed_before_a_policy_is_in_force(event):
    with pytest.raises(NoPolicyInForce):
        sequence_of(gate_start(), event)


@pytest.mark.parametrize("event", [create(8), execute(8)])
def test_a_new_gate_needs_a_policy_of_its_own(event):
    before = (gate_start(), policy(), create())
    with pytest.raises(NoPolicyInForce):
        sequence_of(*before, gate_start(7, value_after(*before)), event)


@pytest.mark.parametrize("event", [create(8), execute(8)])
def test_a_decision_under_the_policy_before_is_refused(event):
    with pytest.raises(NoPolicyInForce):
        sequence_of(gate_start(), policy(), create(), policy(7, "00" * 32), event)


def test_refusals_need_no_policy():
    sequence_of(gate_start(), deny())


@pytest.mark.parametrize("event", [execute(9), leave(9)])
@pytest.mark.parametrize(
    "before", [(), (create(2, "other"),), (create(), leave())], ids=["none", "other", "gone"]
)
def test_exec_and_exit_need_a_running_container(before, event):
    with pytest.raises(NoSuchContainer):
        sequence_of(gate_start(), policy(), *before, event)


def test_an_exec_in_a_container_of_another_image_is_refused():
    with pytest.raises(NoSuchContainer, match="another image"):
        sequence_of(gate_start(), policy(), create(), execute(image="sha256:" + "00" * 32))


def test_a_container_that_did_not_start_may_be_created_again():
    sequence_of(gate_start(), policy(), create(), create(3), leave())
