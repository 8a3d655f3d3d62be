from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hostile import bit_flips, fault_offset, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import tcglog
from catena.formats.tcglog import EventType
from catena.ids import HashAlg

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")

SHA1, SHA256 = (4, 20), (11, 32)
SHA3 = (0x27, 32)
"""TPM_ALG_SHA3_256, which catena does not know."""


def spec_id(*algorithms, pcr=0, vendor=b"", count=None, tail=b""):
    body = tcglog.SPEC_ID_03 + bytes(8)
    body += struct.pack("<I", len(algorithms) if count is None else count)
    body += b"".join(struct.pack("<HH", *algorithm) for algorithm in algorithms)
    body += bytes([len(vendor)]) + vendor + tail
    return struct.pack("<II20sI", pcr, EventType.EV_NO_ACTION, bytes(20), len(body)) + body


def event2(pcr, event_type, digests, data, *, size=None):
    wire = struct.pack("<III", pcr, event_type, len(digests))
    wire += b"".join(struct.pack("<H", tpm_id) + digest for tpm_id, digest in digests)
    return wire + struct.pack("<I", len(data) if size is None else size) + data


def event1(pcr, event_type, data):
    return struct.pack("<II20sI", pcr, event_type, b"d" * 20, len(data)) + data


HEAD = spec_id(SHA1, SHA256)
BOTH = [(4, b"1" * 20), (11, b"2" * 32)]
LOG = HEAD + event2(7, EventType.EV_SEPARATOR, BOTH, bytes(4)) + event2(5, 0x80000123, BOTH, b"x")
OLD_LOG = event1(0, EventType.EV_S_CRTM_VERSION, b"v") + event1(7, EventType.EV_SEPARATOR, bytes(4))


def test_crypto_agile_log_is_read():
    log = tcglog.parse(LOG)
    assert (log.format, log.banks) == ("tcg2", (HashAlg.SHA1, HashAlg.SHA256))
    first, separator, unknown = log.events
    assert (first.index, first.offset, first.type) == (0, 0, EventType.EV_NO_ACTION)
    assert (separator.pcr, separator.data, separator.offset) == (7, bytes(4), len(HEAD))
    assert separator.digests == {HashAlg.SHA1: b"1" * 20, HashAlg.SHA256: b"2" * 32}
    assert tcglog.event_type_name(unknown.type) == "0x80000123"


def test_sha1_log_is_read():
    log = tcglog.parse(OLD_LOG)
    assert (log.format, log.banks, len(log.events)) == ("tcg12", (HashAlg.SHA1,), 2)
    assert log.events[1].digests == {HashAlg.SHA1: b"d" * 20}


def test_register_log_of_a_confidential_vm_is_recognised():
    assert tcglog.parse(spec_id((12, 48), pcr=1)).format == "ccel"


def test_known_event_types_have_their_tcg_names():
    assert tcglog.event_type_name(0x800000E0) == "EV_EFI_VARIABLE_AUTHORITY"
    assert tcglog.event_type_name(0x33) == "0x00000033"


def test_digests_of_unknown_algorithms_are_skipped():
    log = tcglog.parse(
        spec_id(SHA256, SHA3) + event2(0, 8, [(11, b"2" * 32), (0x27, b"3" * 32)], b"")
    )
    assert log.banks == (HashAlg.SHA256,)
    assert log.events[1].digests == {HashAlg.SHA256: b"2" * 32}


def test_digests_of_sm3_are_read():
    sm3 = (18, 32)
    log = tcglog.parse(spec_id(SHA256, sm3) + event2(0, 8, [(11, b"2" * 32), (18, b"3" * 32)], b""))
    assert log.events[1].digests == {HashAlg.SHA256: b"2" * 32, HashAlg.SM3_256: b"3" * 32}


def test_vendor_info_may_follow_behind_the_spec_id_event_as_a_whole():
    """tpm2-tools and tpm2-tss ship such a log; the event's size leaves the vendor info out."""
    short = HEAD[:-1] + b"\4"
    assert tcglog.parse(short + b"info").events == tcglog.parse(short + b"more").events
    log = tcglog.parse(short + b"info" + event2(7, 4, BOTH, b""))
    assert [event.pcr for event in log.events] == [0, 7]
    with pytest.raises(FormatError, match="vendor info runs past the end"):
        tcglog.parse(short + b"inf")


def test_digests_in_any_order_are_accepted():
    log = tcglog.parse(HEAD + event2(0, 8, BOTH[::-1], b""))
    assert log.events[1].digests[HashAlg.SHA256] == b"2" * 32


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
@pytest.mark.parametrize("size", [1, 7, 8, 12, 31, 32, 4096])
@pytest.mark.parametrize("log", [LOG, OLD_LOG], ids=["agile", "sha1"])
def test_padding_after_the_last_event_is_no_event(log, fill, size):
    assert tcglog.parse(log + fill * size).events == tcglog.parse(log).events


@pytest.mark.parametrize("fill", [b"\0", b"\xff"])
def test_padding_with_anything_behind_it_is_malformed(fill):
    with pytest.raises(FormatError):
        tcglog.parse(LOG + fill * 64 + b"\1")


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        (b"", "event header"),
        (spec_id(), "algorithm count"),
        (spec_id(SHA1, count=9), "algorithm count"),
        (spec_id(SHA1, count=0xFFFFFFFF), "algorithm count"),
        (spec_id(SHA1, count=2), "algorithm|runs past"),
        (spec_id(SHA1, SHA1), "Spec ID algorithm"),
        (spec_id((4, 32)), "sha1 digest size"),
        (spec_id((18, 0)), "digest size"),
        (spec_id((18, 65)), "digest size"),
        (spec_id(SHA1, tail=b"\0"), "trailing"),
        (HEAD + event2(24, 8, BOTH, b""), "PCR index"),
        (HEAD + event2(0, 8, [], b""), "digest count"),
        (HEAD + event2(0, 8, [*BOTH, BOTH[0]], b""), "digest count"),
        (HEAD + event2(0, 8, [BOTH[0], BOTH[0]], b""), "digest algorithm"),
        (HEAD + event2(0, 8, [(12, b"3" * 48)], b""), "digest algorithm"),
        (HEAD + event2(0, 8, BOTH, b"", size=1), "event data"),
        (HEAD + event2(0, 8, BOTH, b"", size=0xFFFFFFFF), "event size"),
        (event1(24, 8, b""), "PCR index"),
    ],
)
def test_malformed_log_is_refused(wire, fault):
    with pytest.raises(FormatError, match=fault) as refused:
        tcglog.parse(wire)
    assert 0 <= refused.value.offset <= len(wire)


def test_offset_points_at_the_field_at_fault():
    with pytest.raises(FormatError) as refused:
        tcglog.parse(LOG + event2(0, 8, [(12, b"3" * 48)], b""))
    assert refused.value.offset == len(LOG) + 12


def test_event_that_extends_nothing_may_name_any_register():
    log = tcglog.parse(HEAD + event2(0xFFFFFFFF, EventType.EV_NO_ACTION, BOTH, b""))
    assert log.events[1].pcr == 0xFFFFFFFF


def test_log_over_the_size_limit_is_refused_before_it_is_read():
    with pytest.raises(FormatError, match="length"):
        tcglog.parse(bytes(tcglog.MAX_LOG + 1))


def test_number_of_events_is_bounded():
    events = event1(0, 8, b"") * (tcglog.MAX_EVENTS + 1)
    with pytest.raises(FormatError, match="number of events"):
        tcglog.parse(events)
    agile = HEAD + event2(0, 8, [(4, b"1" * 20)], b"") * tcglog.MAX_EVENTS
    with pytest.raises(FormatError, match="number of events"):
        tcglog.parse(agile)


@pytest.mark.parametrize("log", [LOG, OLD_LOG], ids=["agile", "sha1"])
def test_log_truncated_inside_an_event_is_malformed(log):
    boundaries = {event.offset for event in tcglog.parse(log).events} - {0}
    for size in range(len(log)):
        if size in boundaries:
            continue
        with pytest.raises(FormatError) as refused:
            tcglog.parse(log[:size])
        assert 0 <= refused.value.offset <= size


@needs_corpus
@pytest.mark.parametrize("boot", ["A_nosb_uki", "B_sb_own_uki"])
def test_real_log_truncated_at_every_byte_parses_only_at_event_boundaries(boot):
    log = (CORPUS / "boots" / boot / "eventlog.bin").read_bytes()
    boundaries = {event.offset for event in tcglog.parse(log).events} - {0}
    accepted = set()
    for size in range(len(log)):
        offset = fault_offset(tcglog.parse, log[:size])
        if offset is None:
            accepted.add(size)
        else:
            assert 0 <= offset <= size
    in_padding = {size for size in accepted - boundaries if _only_padding_behind(log, size)}
    assert accepted == boundaries | in_padding


def _only_padding_behind(log, size):
    """True where the truncated piece of an event consists of a single repeated byte."""
    start = max(e.offset for e in tcglog.parse(log).events if e.offset < size)
    return len(set(log[start:size])) == 1


@needs_corpus
def test_real_log_with_a_flipped_bit_parses_or_is_malformed():
    log = (CORPUS / "boots/A_nosb_uki/eventlog.bin").read_bytes()
    assert all(refuses_cleanly(tcglog.parse, flipped) for flipped in bit_flips(log, step=5))


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_malformed(data):
    assert refuses_cleanly(tcglog.parse, data)
    assert refuses_cleanly(tcglog.parse, HEAD + data)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 23),
            st.integers(1, 0xFFFFFFFF),
            st.binary(min_size=32, max_size=32),
            st.binary(max_size=40),
        ),
        max_size=8,
    )
)
def test_any_events_are_read_back(events):
    wire = spec_id(SHA256) + b"".join(
        event2(pcr, kind, [(11, digest)], data) for pcr, kind, digest, data in events
    )
    parsed = tcglog.parse(wire).events[1:]
    assert [(e.pcr, e.type, e.digests[HashAlg.SHA256], e.data) for e in parsed] == events
