"""Piece by piece, an IMA log replays to what it replays to as a whole."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import ima
from catena.ids import HashAlg
from catena.measure.ima_replay import UnreachedImaValue, advance, at_boot, reach
from catena.measure.replay import replay_ima
from changed import replace
from small_logs import ima_entry

BANKS = (HashAlg.SHA1, HashAlg.SHA256)
OLD = ima.ImaEntry(0, 10, b"d" * 20, "ima", b"5" * 20 + b"\4\0\0\0/bin", (b"5" * 20, b"/bin"))
ENTRIES = (
    *(ima_entry(index, b"/lib/%d" % index) for index in range(20)),
    OLD,
    replace(ima_entry(0, b"/violated"), template_digest=bytes(20)),
    replace(ima_entry(0, b"/elsewhere"), pcr=12),
    ima_entry(0, b"/signed", b"s" * 70, template="ima-sig"),
)
LOG = b"".join(map(ima.encode, ENTRIES))
ENDS = [sum(len(ima.encode(one)) for one in ENTRIES[:count]) for count in range(len(ENTRIES) + 1)]


@pytest.mark.parametrize("bank", BANKS)
def test_replay_without_entries_equals_replay_of_entries(bank):
    state = advance(at_boot(bank), LOG)
    assert state.value == replay_ima(ENTRIES, bank)[10]
    assert state.entries == len(ENTRIES)


def test_a_real_log_replays_to_what_the_tpm_held(boot):
    wire = b"".join(map(ima.encode, boot.ima))
    for bank in BANKS:
        assert advance(at_boot(bank), wire).value == boot.pcr(10, bank)


@given(cuts=st.lists(st.integers(0, len(ENTRIES)), max_size=4))
def test_pieces_add_up_to_the_whole(cuts):
    state = at_boot(HashAlg.SHA256)
    places = [0, *sorted(ENDS[cut] for cut in cuts), len(LOG)]
    for start, end in pairwise(places):
        state = advance(state, LOG[start:end])
    assert state == advance(at_boot(HashAlg.SHA256), LOG)


@given(count=st.integers(0, len(ENTRIES) - 3))
def test_the_quoted_value_says_how_far_the_log_is_proven(count):
    quoted = advance(at_boot(HashAlg.SHA256), LOG[: ENDS[count]]).value
    state, end = reach(at_boot(HashAlg.SHA256), LOG, quoted)
    assert (state.entries, end, state.value) == (count, ENDS[count], quoted)
    last = advance(at_boot(HashAlg.SHA256), LOG).value
    assert reach(state, LOG[end:], last)[0].value == last


def test_a_value_that_no_prefix_leads_to_is_refused():
    with pytest.raises(UnreachedImaValue) as caught:
        reach(at_boot(HashAlg.SHA256), LOG, b"x" * 32)
    assert caught.value.code == "ima-value-unreached"


def test_a_log_cut_inside_an_entry_is_malformed_at_that_entry():
    for size in range(ENDS[-2] + 1, ENDS[-1]):
        with pytest.raises(FormatError) as caught:
            advance(at_boot(HashAlg.SHA256), LOG[:size])
        assert ENDS[-2] <= caught.value.offset <= size


@pytest.mark.parametrize(
    "entry",
    [replace(ENTRIES[0], pcr=24), replace(ENTRIES[0], template_name="x" * 65)],
)
def test_an_entry_that_parsing_refuses_is_refused(entry):
    with pytest.raises(FormatError):
        advance(at_boot(HashAlg.SHA256), ima.encode(entry))


def test_memory_does_not_grow_with_the_log():
    def peak(log: bytes) -> int:
        tracemalloc.start()
        advance(at_boot(HashAlg.SHA256), log)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(LOG * 200) < peak(LOG) + 16 * 1024
