from __future__ import annotations

import pytest
from hostile import bit_flips, fault_offset, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import cel
from catena.formats.cel import CelRecord, complete_tlv, encode_tlv, parse_json, parse_tlv
from catena.ids import HashAlg
from changed import replace
from small_logs import CEL_JSON, CEL_RECORDS, CEL_TLV, PHASES

RECORD = CEL_JSON.split(b"\x1e")[1]


def without_offsets(records):
    return tuple(replace(record, offset=0) for record in records)


def test_systemds_log_is_read():
    records = parse_json(CEL_JSON)
    assert [record.text for record in records] == list(PHASES)
    assert {record.pcr for record in records} == {11}
    assert records[1].digests[HashAlg.SHA256] == HashAlg.SHA256.digest(PHASES[1])
    assert records[1].offset == CEL_JSON.index(b"\x1e", 1)


def test_tlv_round_trips():
    assert without_offsets(parse_tlv(CEL_TLV)) == CEL_RECORDS
    assert b"".join(map(encode_tlv, parse_tlv(CEL_TLV))) == CEL_TLV


@given(
    pcr=st.none() | st.integers(0, 23),
    digests=st.dictionaries(st.sampled_from(list(HashAlg)), st.binary(min_size=64, max_size=64)),
    content=st.binary(max_size=300),
    kind=st.integers(4, 255),
)
def test_any_tlv_record_round_trips(pcr, digests, content, kind):
    sized = {bank: value[: bank.size] for bank, value in digests.items()}
    nv_index = 0x01400000 if pcr is None else None
    record = CelRecord(0, pcr, nv_index, sized, str(kind), content, 0)
    assert parse_tlv(encode_tlv(record)) == (record,)


def test_tlv_truncated_at_every_byte_parses_only_at_record_boundaries():
    ends = {record.offset for record in parse_tlv(CEL_TLV)}
    for size in range(len(CEL_TLV)):
        assert (fault_offset(parse_tlv, CEL_TLV[:size]) is None) == (size in ends), size


def test_flipped_bits_are_accepted_or_refused_cleanly():
    assert all(refuses_cleanly(parse_tlv, wire) for wire in bit_flips(CEL_TLV))
    assert all(refuses_cleanly(parse_json, wire) for wire in bit_flips(CEL_JSON))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ((b'"pcr": 11', b'"pcr": 24'), "not a CEL-JSON record"),
        ((b'"pcr": 11', b'"nv_index": 11, "pcr": 11'), "one of pcr and nv_index"),
        ((b'"pcr": 11, ', b""), "one of pcr and nv_index"),
        ((b'"pcr": 11', b'"pcr": 11, "recnum": 5'), "out of sequence"),
        ((b'"pcr": 11', b'"pcr": 11, "extra": 5'), "not a CEL-JSON record"),
        ((b'"sha256", "digest": "', b'"sha256", "digest": "00'), "sha256 digest"),
        ((b'"sha1"', b'"sha256"'), "sha256 digest"),
    ],
)
def test_a_wrong_json_record_is_malformed(change, fault):
    with pytest.raises(FormatError, match=fault):
        parse_json(b"\x1e" + RECORD.replace(*change))


def test_unknown_hashes_are_skipped():
    (record,) = parse_json(b"\x1e" + RECORD.replace(b'"sha1"', b'"sha3-256"'))
    assert list(record.digests) == [HashAlg.SHA256]


@pytest.mark.parametrize("wire", [RECORD, b"\x1e" + b"[" * 100_000, b"\x1e", b"\x1e\x1e"])
def test_what_is_no_sequence_of_records_is_malformed(wire):
    with pytest.raises(FormatError):
        parse_json(wire)


def test_records_out_of_sequence_are_malformed():
    with pytest.raises(FormatError, match="out of sequence"):
        parse_tlv(encode_tlv(CEL_RECORDS[0]) * 2)


@pytest.mark.parametrize(
    ("field", "fault"),
    [
        (cel._tlv(1, b"\x18"), "out of range"),
        (cel._tlv(1, b""), "neither PCR nor NV"),
        (cel._tlv(7, b"\0"), "neither PCR nor NV"),
    ],
)
def test_a_record_for_no_place_is_malformed(field, fault):
    wire = encode_tlv(CEL_RECORDS[0])
    place = cel._tlv(1, (11).to_bytes(4, "big"))
    with pytest.raises(FormatError, match=fault):
        parse_tlv(wire.replace(place, field, 1))


def test_number_and_size_of_records_are_bounded(monkeypatch):
    monkeypatch.setattr(cel, "MAX_RECORDS", 2)
    with pytest.raises(FormatError, match="too many records"):
        parse_json(CEL_JSON)
    with pytest.raises(FormatError, match="too many records"):
        parse_tlv(CEL_TLV)
    monkeypatch.setattr(cel, "MAX_LOG", 10)
    with pytest.raises(FormatError, match="too large"):
        parse_tlv(CEL_TLV)


def test_text_of_another_content_is_the_content_itself():
    (record,) = parse_json(b"\x1e" + RECORD.replace(b'"string"', b'"words"'))
    assert record.text == record.content


def test_the_whole_records_of_a_log_that_was_cut_anywhere():
    ends = [record.offset for record in parse_tlv(CEL_TLV)]
    for size in range(len(CEL_TLV)):
        assert complete_tlv(CEL_TLV[:size]) == max(end for end in ends if end <= size)
    assert complete_tlv(CEL_TLV) == len(CEL_TLV)


@pytest.mark.parametrize("at", [1, 14, 23])
def test_a_length_above_its_limit_is_no_record_cut_short(at):
    wire = bytearray(CEL_TLV)
    wire[at] = 0xFF
    with pytest.raises(FormatError, match="too long"):
        complete_tlv(bytes(wire[: at + 4]))


def test_the_content_of_a_record_that_was_cut_anywhere():
    wire = encode_tlv(CEL_RECORDS[0])
    start = len(wire) - len(PHASES[0])
    for size in range(len(wire) + 1):
        assert cel.cut_content(wire[:size]) == wire[start:size]


@pytest.mark.parametrize("at", [0, 13, 22])
def test_a_field_out_of_place_begins_no_record(at):
    wire = bytearray(encode_tlv(CEL_RECORDS[0]))
    wire[at] = 7
    with pytest.raises(FormatError, match="out of place"):
        cel.cut_content(bytes(wire))
