from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import efi
from catena.formats.efi import SignatureEntry, SignatureList, VariableData

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")

OWNER = UUID("11223344-5566-7788-99aa-bbccddeeff00")
VARIABLE = VariableData(efi.EFI_GLOBAL_VARIABLE, "SecureBoot", b"\1")
HASHES = SignatureList(
    efi.EFI_CERT_SHA256,
    (SignatureEntry(OWNER, b"a" * 32), SignatureEntry(OWNER, b"b" * 32)),
)
CERTIFICATE = SignatureList(efi.EFI_CERT_X509, (SignatureEntry(OWNER, b"certificate"),))
LISTS = efi.encode_signature_lists([HASHES, CERTIFICATE])
PATH = bytes.fromhex("02010c00d041030a00000000 010106000002 03120a000000ffff0000 7fff0400")
LOAD = (1).to_bytes(8, "little") + (2).to_bytes(8, "little") + bytes(8)
LOAD += len(PATH).to_bytes(8, "little") + PATH


def test_variable_is_encoded_as_firmware_hashes_it():
    wire = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c" + "0a" + "00" * 7 + "01" + "00" * 7)
    assert VARIABLE.encode() == wire + "SecureBoot".encode("utf-16-le") + b"\1"
    assert efi.parse_variable(VARIABLE.encode()) == VARIABLE


@pytest.mark.parametrize(
    ("parse", "wire"),
    [
        pytest.param(efi.parse_variable, VARIABLE.encode(), id="variable"),
        pytest.param(efi.parse_image_load, LOAD, id="image-load"),
    ],
)
def test_every_truncation_and_trailing_byte_is_malformed(parse, wire):
    for broken in [*(wire[:size] for size in range(len(wire))), wire + b"\0"]:
        with pytest.raises(FormatError) as refused:
            parse(broken)
        assert 0 <= refused.value.offset <= len(broken)


def test_signature_lists_truncated_inside_a_list_are_malformed():
    for size in range(1, len(LISTS)):
        if size == len(HASHES.encode()):
            continue
        with pytest.raises(FormatError):
            efi.parse_signature_lists(LISTS[:size])


@pytest.mark.parametrize(
    ("parse", "wire"),
    [
        pytest.param(efi.parse_variable, VARIABLE.encode(), id="variable"),
        pytest.param(efi.parse_image_load, LOAD, id="image-load"),
        pytest.param(efi.parse_signature_lists, LISTS, id="lists"),
        pytest.param(efi.device_path_text, PATH, id="path"),
    ],
)
def test_a_flipped_bit_parses_or_is_malformed(parse, wire):
    assert all(refuses_cleanly(parse, flipped) for flipped in bit_flips(wire))


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_malformed(data):
    for parse in (
        efi.parse_variable,
        efi.parse_signature_lists,
        efi.parse_signature_entry,
        efi.parse_image_load,
        efi.device_path_text,
    ):
        assert refuses_cleanly(parse, data)


@given(guid=st.uuids(), name=st.text(max_size=20), data=st.binary(max_size=50))
def test_any_variable_round_trips(guid, name, data):
    variable = VariableData(guid, name, data)
    assert efi.parse_variable(variable.encode()) == variable


def test_lone_surrogate_in_a_name_round_trips():
    wire = VARIABLE.encode().replace(b"S\0", b"\0\xd8")
    assert efi.parse_variable(wire).encode() == wire


def test_over_long_variable_name_is_refused():
    wire = bytes(16) + (513).to_bytes(8, "little") + bytes(8 + 2 * 513)
    with pytest.raises(FormatError, match="name is too long"):
        efi.parse_variable(wire)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1])
def test_absurd_variable_data_length_is_refused(length):
    with pytest.raises(FormatError, match="runs past"):
        efi.parse_variable(bytes(24) + length.to_bytes(8, "little"))


def test_signature_lists_round_trip():
    assert efi.parse_signature_lists(LISTS) == (HASHES, CERTIFICATE)
    assert efi.parse_signature_lists(b"") == ()


@given(
    st.lists(
        st.builds(
            lambda guid, size, count, header: SignatureList(
                guid, tuple(SignatureEntry(OWNER, bytes([n]) * size) for n in range(count)), header
            ),
            st.uuids(),
            st.integers(1, 40),
            st.integers(1, 5),
            st.binary(max_size=8),
        ),
        max_size=4,
    )
)
def test_any_signature_lists_round_trip(lists):
    assert efi.parse_signature_lists(efi.encode_signature_lists(lists)) == tuple(lists)


def _list(total, header, size, body=b""):
    return bytes(16) + b"".join(n.to_bytes(4, "little") for n in (total, header, size)) + body


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        (_list(28, 0, 0), "add up"),  # size 0: an endless loop elsewhere
        (_list(28 + 16, 0, 16, bytes(16)), "add up"),  # an owner and nothing owned
        (_list(0, 0, 48), "add up"),
        (_list(28, 0xFFFFFFFF, 48), "add up"),
        (_list(28 + 47, 0, 48, bytes(47)), "add up"),
        (_list(0xFFFFFFFF, 0, 0xFFFFFFFF - 28), "runs past"),
        (_list(28 + 17 * 16385, 0, 17, bytes(17 * 16385)), "too many signatures"),
    ],
)
def test_impossible_signature_list_is_refused(wire, fault):
    with pytest.raises(FormatError, match=fault):
        efi.parse_signature_lists(wire)


def test_number_of_lists_is_bounded():
    empty = _list(28, 0, 17)
    with pytest.raises(FormatError, match="too many signature lists"):
        efi.parse_signature_lists(empty * (efi.MAX_LISTS + 1))


def test_signatures_of_different_size_cannot_share_a_list():
    entries = (SignatureEntry(OWNER, b"a"), SignatureEntry(OWNER, b"bc"))
    with pytest.raises(FormatError, match="differ in size"):
        SignatureList(efi.EFI_CERT_X509, entries).encode()


def test_image_load_event_is_read():
    load = efi.parse_image_load(LOAD)
    assert (load.address, load.length, load.device_path) == (1, 2, PATH)


def _node(kind, subtype, body):
    return bytes([kind, subtype]) + (4 + len(body)).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (PATH, "PciRoot(0x0)/Pci(0x2,0x0)/Sata(0x0,0xffff,0x0)"),
        (_node(4, 4, "\\EFI\\BOOT\\BOOTX64.EFI\0".encode("utf-16-le")), "\\EFI\\BOOT\\BOOTX64.EFI"),
        (_node(4, 7, OWNER.bytes_le), f"Fv({OWNER})"),
        (_node(4, 6, OWNER.bytes_le), f"FvFile({OWNER})"),
        (_node(1, 4, OWNER.bytes_le), f"Ven({OWNER})"),
        (_node(3, 10, OWNER.bytes_le + b"data"), f"Ven({OWNER})"),
        (_node(3, 12, bytes(23)), "IPv4"),
        (_node(3, 13, bytes(56)), "IPv6"),
        (_node(1, 3, bytes(20)), "MemoryMapped(0x0,0x0,0x0)"),
        (_node(2, 1, bytes(8)), "Acpi(0x00000000,0x0)"),
        (_node(3, 2, b"\1\0\2\0"), "Scsi(0x1,0x2)"),
        (_node(3, 5, b"\1\0"), "USB(0x1,0x0)"),
        (_node(3, 11, bytes(range(6)) + bytes(27)), "MAC(000102030405)"),
        (_node(3, 23, b"\1\0\0\0" + bytes(8)), "NVMe(0x1,0000000000000000)"),
        (_node(3, 24, b"http://x/\xff"), "Uri(http://x/\\xff)"),
        (_node(4, 1, b"\1\0\0\0" + bytes(16) + OWNER.bytes_le + b"\2\2"), f"HD(1,GPT,{OWNER})"),
        (_node(9, 9, b"??"), "Path(9,9)"),
        (_node(1, 1, b""), "Path(1,1)"),  # a known node, too short
        (b"", ""),
    ],
)
def test_device_path_is_readable(path, text):
    assert efi.device_path_text(path) == text


@pytest.mark.parametrize("path", [b"\1", b"\1\1\3\0", b"\1\1\0\0", b"\1\1\xff\xff"])
def test_device_path_with_an_impossible_length_is_refused(path):
    with pytest.raises(FormatError):
        efi.device_path_text(path)


def test_number_of_device_path_nodes_is_bounded():
    with pytest.raises(FormatError, match="too many device path nodes"):
        efi.device_path_text(_node(9, 9, b"") * (efi.MAX_NODES + 1))


@needs_corpus
def test_real_key_variables_and_lists_round_trip():
    files = [path for path in (CORPUS / "efi").iterdir() if path.name.endswith(".esl")]
    assert len(files) >= 5
    for path in files:
        data = path.read_bytes()
        lists = efi.parse_signature_lists(data)
        assert lists, path.name
        assert efi.encode_signature_lists(lists) == data


def test_a_boot_order_without_end_is_not_spelled_out():
    long = bytes(2 * efi.MAX_BOOT_OPTIONS)
    order = VariableData(efi.EFI_GLOBAL_VARIABLE, "BootOrder", long)
    assert efi.boot_variable_text(order).count("0000") == efi.MAX_BOOT_OPTIONS
    longer = VariableData(efi.EFI_GLOBAL_VARIABLE, "BootOrder", long + bytes(2))
    assert len(efi.boot_variable_text(longer)) <= 32
