from __future__ import annotations

import uuid
import zlib
from pathlib import Path

import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import gpt, tcglog
from catena.formats.gpt import GptError, Partition, PartitionTable

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")
GPT_EVENT = 0x80000006

ESP = Partition(uuid.UUID(int=1), uuid.UUID(int=2), 2048, 4095, 0, "esp")
ROOT = Partition(uuid.UUID(int=3), uuid.UUID(int=4), 4096, 8191, 1 << 60, "root ß")
TABLE = PartitionTable(uuid.UUID(int=9), 10000, (ESP, ROOT))
START = TABLE.encode_start()


def test_table_round_trips():
    assert len(START) == gpt.FIRST_USABLE * gpt.SECTOR
    assert gpt.parse(START) == TABLE
    assert ROOT.size == 4096 * 512


def test_backup_mirrors_the_primary():
    end = TABLE.encode_end()
    assert len(end) == 33 * gpt.SECTOR
    assert end[: 32 * 512] == START[2 * 512 :]
    header = end[32 * 512 :]
    assert int.from_bytes(header[24:32], "little") == 9999
    assert int.from_bytes(header[32:40], "little") == 1
    assert int.from_bytes(header[72:80], "little") == TABLE.last_usable + 1


def test_event_is_header_count_and_used_entries():
    event = TABLE.event_data()
    assert event == START[512 : 512 + 92] + (2).to_bytes(8, "little") + START[1024 : 1024 + 256]


@needs_corpus
def test_event_equals_what_firmware_measured():
    log = tcglog.parse((CORPUS / "boots/B_sb_own_uki/eventlog.bin").read_bytes())
    data = next(event.data for event in log.events if event.type == GPT_EVENT)
    sectors = int.from_bytes(data[32:40], "little") + 1
    entry = data[100:]
    first, last, attributes = (int.from_bytes(entry[at : at + 8], "little") for at in (32, 40, 48))
    partition = Partition(
        uuid.UUID(bytes_le=entry[:16]),
        uuid.UUID(bytes_le=entry[16:32]),
        first,
        last,
        attributes,
        entry[56:].decode("utf-16-le").rstrip("\0"),
    )
    disk_guid = uuid.UUID(bytes_le=data[56:72])
    assert PartitionTable(disk_guid, sectors, (partition,)).event_data() == data


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=18)


@given(
    disk=st.uuids(),
    kinds=st.lists(st.tuples(st.uuids(), st.uuids(), names), max_size=8),
    attributes=st.integers(0, 2**64 - 1),
)
def test_any_table_round_trips(disk, kinds, attributes):
    partitions = tuple(
        Partition(kind, guid, 2048 * n, 2048 * n + 99, attributes, name)
        for n, (kind, guid, name) in enumerate(kinds, start=1)
    )
    table = PartitionTable(disk, 1 << 20, partitions)
    assert gpt.parse(table.encode_start()) == table


def test_truncation_anywhere_is_refused():
    for size in (*range(1200), *range(1200, len(START), 97)):
        with pytest.raises(FormatError):
            gpt.parse(START[:size])


def test_every_flipped_bit_is_noticed():
    """Both parts are under checksums; the zero rest of the header's sector is not read."""
    read = START[512 : 512 + 92]
    for flipped in bit_flips(read):
        with pytest.raises(FormatError):
            gpt.parse(START[:512] + flipped + START[512 + 92 :])
    for flipped in bit_flips(START[1024 : 1024 + 512], step=3):
        with pytest.raises(FormatError):
            gpt.parse(START[:1024] + flipped + START[1536:])


@pytest.mark.parametrize(
    "partitions",
    [
        (ESP, Partition(ROOT.type_guid, ROOT.guid, 4095, 8191, 0, "overlap")),
        (Partition(ROOT.type_guid, ROOT.guid, 33, 100, 0, "in the table"),),
        (Partition(ROOT.type_guid, ROOT.guid, 5000, 9999, 0, "over the backup"),),
        (Partition(ROOT.type_guid, ROOT.guid, 5000, 4999, 0, "negative"),),
    ],
)
def test_partitions_that_overlap_are_refused(partitions):
    with pytest.raises(gpt.GptError, match="overlaps"):
        gpt.parse(PartitionTable(TABLE.disk_guid, 10000, partitions).encode_start())


def test_overlong_name_is_refused():
    with pytest.raises(gpt.GptError, match="too long"):
        Partition(ESP.type_guid, ESP.guid, 34, 35, 0, "x" * 37).encode()


@given(st.binary(max_size=2048))
def test_arbitrary_bytes_never_crash(noise):
    assert refuses_cleanly(gpt.parse, START[:512] + noise)
    assert refuses_cleanly(gpt.parse, noise)


def test_what_firmware_measures_of_a_disk_is_read_from_its_start():
    start = TABLE.encode_start()
    assert gpt.measured_data(start) == TABLE.event_data()
    read = gpt.parse_event(TABLE.event_data())
    assert (read.disk_guid, read.partitions) == (TABLE.disk_guid, TABLE.partitions)


def test_a_table_with_another_number_of_entries_is_measured_as_it_is():
    start = bytearray(TABLE.encode_start())
    entries = bytes(start[1024 : 1024 + 8 * 128])
    start[512 + 80 : 512 + 84] = (8).to_bytes(4, "little")
    start[512 + 88 : 512 + 92] = zlib.crc32(entries).to_bytes(4, "little")
    start[512 + 16 : 512 + 20] = bytes(4)
    start[512 + 16 : 512 + 20] = zlib.crc32(bytes(start[512:604])).to_bytes(4, "little")
    assert gpt.parse_event(gpt.measured_data(bytes(start))).partitions == TABLE.partitions
    with pytest.raises(GptError):
        gpt.parse(bytes(start))  # catena's own disks have 128


@pytest.mark.parametrize("at", [512, 512 + 40, 1024 + 3])
def test_a_table_that_does_not_match_its_checksums_is_not_measured(at):
    start = bytearray(TABLE.encode_start())
    start[at] ^= 1
    with pytest.raises(GptError):
        gpt.measured_data(bytes(start))


@needs_corpus
def test_every_real_partition_table_in_a_log_is_read():
    logs = [path for path in (CORPUS / "eventlogs").iterdir() if path.suffix != ".tsv"]
    events = [event for path in logs for event in tcglog.parse(path.read_bytes()).events]
    tables = [event.data for event in events if event.type == GPT_EVENT]
    assert len(tables) > 20
    for data in tables:
        assert gpt.parse_event(data).disk_guid.int


def test_a_cut_or_padded_event_is_malformed():
    data = TABLE.event_data()
    for wire in (data[:-1], data + b"\0", b"x" + data[1:], data[:92] + b"\xff" * 8 + data[100:]):
        with pytest.raises(FormatError):
            gpt.parse_event(wire)


@pytest.mark.parametrize("size", [0, 511, 512, 603])
def test_a_disk_that_ends_before_its_table_is_malformed_inside(size):
    assert refuses_cleanly(gpt.measured_data, TABLE.encode_start()[:size])


def test_entries_said_to_be_far_away_are_malformed_inside():
    disk = bytearray(TABLE.encode_start())
    disk[512 + 72 : 512 + 80] = (1 << 40).to_bytes(8, "little")
    disk[512 + 80 : 512 + 84] = bytes(4)
    disk[512 + 16 : 512 + 20] = bytes(4)
    disk[512 + 16 : 512 + 20] = zlib.crc32(disk[512 : 512 + 92]).to_bytes(4, "little")
    with pytest.raises(GptError, match="checksum") as refused:
        gpt.measured_data(bytes(disk))
    assert refused.value.offset == len(disk)
