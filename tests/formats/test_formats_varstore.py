from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from uuid import UUID

import pytest
from hostile import bit_flips, fault_offset, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import varstore
from catena.formats.efi import EFI_GLOBAL_VARIABLE
from catena.formats.varstore import AUTHENTICATED, NV_DATA, StoredVariable, parse

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
BOOTS = sorted((CORPUS / "boots").glob("*")) if CORPUS.is_dir() else []
HEADER = 72


def record(name, data, *, state=0x3F, guid=EFI_GLOBAL_VARIABLE, attributes=7):
    text = name.encode("utf-16-le") + b"\0\0"
    head = struct.pack("<HBBIQ16sI", 0x55AA, state, 0, attributes, 0, bytes(16), 0)
    wire = head + struct.pack("<II", len(text), len(data)) + guid.bytes_le + text + data
    return wire + b"\xff" * (-len(wire) % 4)


def store(*records, size=4096, guid=AUTHENTICATED, mark=b"\x5a\xfe"):
    body = b"".join(records)
    head = guid.bytes_le + struct.pack("<I", size) + mark + bytes(6)
    volume = bytes(16) + NV_DATA.bytes_le + struct.pack("<Q", HEADER + size) + b"_FVH"
    volume += struct.pack("<IHHHBB", 0, HEADER, 0, 0, 0, 2)
    return volume.ljust(HEADER, b"\0") + (head + body).ljust(size, b"\xff")


STORE = store(record("PK", b"key"), record("BootOrder", b"\1\0"), record("odd", b"xyz"))


def contents(data):
    return {one.name: one.data for one in parse(data)}


def test_variables_are_read_in_order():
    assert contents(STORE) == {"PK": b"key", "BootOrder": b"\1\0", "odd": b"xyz"}
    assert parse(STORE)[0] == StoredVariable(EFI_GLOBAL_VARIABLE, "PK", 7, b"key")


def test_deleted_variables_do_not_count():
    gone = record("PK", b"old", state=0x3C)
    header_only = record("PK", b"half", state=0x7F)
    assert contents(store(gone, header_only, record("PK", b"new"))) == {"PK": b"new"}


def test_an_update_that_was_cut_off_leaves_the_old_value():
    old, new = record("PK", b"old", state=0x3E), record("PK", b"new")
    assert contents(store(old)) == {"PK": b"old"}
    assert contents(store(old, new)) == {"PK": b"new"}


@pytest.mark.parametrize("boot", BOOTS, ids=lambda boot: boot.name)
def test_real_stores_hold_what_the_booted_system_read(boot):
    held = json.loads((boot / "state.json").read_text())["vars_b64"]
    read = contents((boot / "vars.fd").read_bytes())
    for name in ("PK", "KEK", "db", "dbx"):
        shown = held.get(next((one for one in held if one.startswith(f"{name}-")), ""), "")
        assert read.get(name, b"") == base64.b64decode(shown)[4:], name


@pytest.mark.parametrize("boot", BOOTS, ids=lambda boot: boot.name)
def test_another_reader_finds_the_same(boot):
    from catena.keys.varstore import read_variables

    assert contents((boot / "vars.fd").read_bytes()) == read_variables(boot / "vars.fd")


@given(
    st.dictionaries(
        st.text("abcdefgh", min_size=1, max_size=20), st.binary(max_size=80), max_size=8
    )
)
def test_any_variables_are_read_back(values):
    assert contents(store(*(record(name, data) for name, data in values.items()))) == values


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        (b"", "past the end"),
        (bytes(4096), "no firmware volume"),
        (store(guid=UUID(int=1)), "no store of authenticated"),
        (store(mark=b"\x5a\xff"), "no store of authenticated"),
        (store(size=8192)[:6000], "does not fit the file"),
        (store(b"\0" * 100), "no variable where one should start"),
        (store(record("x" * 1100, b"")), "too large"),
    ],
)
def test_what_is_no_store_is_malformed(wire, fault):
    with pytest.raises(FormatError, match=fault):
        parse(wire)


def test_a_store_larger_than_its_volume_is_malformed():
    wire = bytearray(STORE)
    wire[HEADER + 16 : HEADER + 20] = struct.pack("<I", 1 << 20)
    with pytest.raises(FormatError, match="does not fit its volume"):
        parse(bytes(wire))


def test_number_of_variables_is_bounded(monkeypatch):
    monkeypatch.setattr(varstore, "MAX_VARIABLES", 2)
    with pytest.raises(FormatError, match="no variable where"):
        parse(STORE)
    monkeypatch.setattr(varstore, "MAX_STORE", 100)
    with pytest.raises(FormatError, match="too large"):
        parse(STORE)


def test_truncated_stores_are_refused():
    assert all(fault_offset(parse, STORE[:size]) is not None for size in range(len(STORE)))


def test_flipped_bits_are_accepted_or_refused_cleanly():
    assert all(refuses_cleanly(parse, wire) for wire in bit_flips(STORE[:400] + STORE[400:], 7))
