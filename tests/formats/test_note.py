"""Signed notes and checkpoints, strict to the letter of C2SP."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import note
from catena.formats.note import Checkpoint, Note, NoteSignature

TESSERA = (
    Path(__file__).resolve().parents[2].parent
    / "shared/corpus/tlog/transparency-dev+tessera/testdata/log"
)
needs_corpus = pytest.mark.skipif(not TESSERA.is_dir(), reason="the shared corpus is not here")

ROOT = bytes(range(32))
TEXT = Checkpoint("log.example/a", 12, ROOT).encode()
SIGNATURE = NoteSignature("log.example/a", b"\x01\x02\x03\x04", b"s" * 64)
NOTE = Note(TEXT, (SIGNATURE,))
BLOB = base64.b64encode(b"\x01\x02\x03\x04" + b"s" * 64).decode()

names = st.text(min_size=1, max_size=20).filter(note.is_key_name)
lines = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)


def test_a_note_is_laid_out_as_the_specification_draws_it():
    assert NOTE.encode() == f"{TEXT}\n— log.example/a {BLOB}\n"


@given(
    text=st.lists(lines | st.just(""), min_size=1, max_size=6),
    signatures=st.lists(
        st.builds(
            NoteSignature,
            names,
            st.binary(min_size=4, max_size=4),
            st.binary(min_size=1, max_size=80),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_every_note_survives_its_encoding(text, signatures):
    written = Note("".join(f"{line}\n" for line in text), tuple(signatures))
    assert note.parse(written.encode().encode()) == written


@given(
    origin=lines,
    size=st.integers(0, note.MAX_TREE_SIZE),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(lines, max_size=3),
)
def test_every_checkpoint_survives_its_encoding(origin, size, root, extensions):
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert note.parse_checkpoint(checkpoint.encode()) == checkpoint


def test_a_note_cut_at_any_byte_is_refused():
    data = NOTE.encode().encode()
    for end in range(len(data)):
        with pytest.raises(FormatError):
            note.parse(data[:end])


def test_a_checkpoint_cut_at_any_letter_is_refused():
    for end in range(len(TEXT)):
        with pytest.raises(FormatError):
            note.parse_checkpoint(TEXT[:end])


def test_a_flipped_bit_is_refused_or_read_as_what_it_says():
    data = NOTE.encode().encode()
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with contextlib.suppress(FormatError):
                assert note.parse(bytes(changed)).encode().encode() == changed


@given(st.binary(max_size=300))
def test_whatever_parses_is_written_the_same_way_again(data):
    with contextlib.suppress(FormatError):
        assert note.parse(data).encode().encode() == data


@pytest.mark.parametrize(
    "block",
    [
        "",
        "\n",
        f"- log.example/a {BLOB}\n",
        f"—  log.example/a {BLOB}\n",
        f"— log.example/a  {BLOB}\n",
        f"— log.example/a {BLOB} \n",
        f"— log+example {BLOB}\n",
        f"— log.example/a {BLOB}",
        f"— log.example/a {BLOB}\n\n",
        f"— log.example/a {BLOB}\nand more\n",
        "— log.example/a\n",
        "— log.example/a AQIDBA==\n",
        "— log.example/a AQID\n",
        "— log.example/a AQIDBAX=\n",
        "— log.example/a AQ-_BAUG\n",
        "— log.example/a AQIDBAU\n",
        f"— {BLOB}\n",
    ],
)
def test_a_signature_line_of_another_shape_is_refused(block):
    with pytest.raises(FormatError):
        note.parse(f"{TEXT}\n{block}".encode())


@pytest.mark.parametrize("letter", ["\r", "\t", "\x00", "\x1b"])
def test_control_characters_are_refused(letter):
    with pytest.raises(FormatError, match="control character"):
        note.parse(f"a{letter}\n\n— n {BLOB}\n".encode())


def test_text_that_is_not_utf_8_is_refused():
    with pytest.raises(FormatError, match="UTF-8"):
        note.parse(b"\xff\n\n" + SIGNATURE.encode().encode() + b"\n")


def test_too_many_signatures_are_refused():
    with pytest.raises(FormatError, match="too many"):
        note.parse(Note(TEXT, (SIGNATURE,) * (note.MAX_SIGNATURES + 1)).encode().encode())


def test_an_oversized_note_is_refused():
    with pytest.raises(FormatError, match="too large"):
        note.parse(b"a" * (note.MAX_NOTE + 1))


@pytest.mark.parametrize("size", ["", "-1", "+1", "01", "1.0", "0x1", " 1", "١", str(2**63)])
def test_a_size_in_another_spelling_is_refused(size):
    with pytest.raises(FormatError, match="decimal"):
        note.parse_checkpoint(f"o\n{size}\n{base64.b64encode(ROOT).decode()}\n")


@pytest.mark.parametrize("root", ["", "AAAA", base64.b64encode(ROOT + b"x").decode(), "!" * 44])
def test_a_root_that_is_no_hash_is_refused(root):
    with pytest.raises(FormatError, match="root"):
        note.parse_checkpoint(f"o\n1\n{root}\n")


def test_a_root_with_loose_bits_is_refused():
    spelled = base64.b64encode(ROOT).decode()
    assert spelled.endswith("8=")
    with pytest.raises(FormatError, match="canonical"):
        note.parse_checkpoint(f"o\n1\n{spelled[:-2]}9=\n")


@pytest.mark.parametrize(
    "text", ["\n1\n{root}\n", "o\n1\n{root}\n\n", "o\n1\n{root}\n\nx\n", "o\n1\n"]
)
def test_a_checkpoint_of_another_shape_is_refused(text):
    with pytest.raises(FormatError):
        note.parse_checkpoint(text.format(root=base64.b64encode(ROOT).decode()))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb", "a\u200fb"])
def test_names_that_cannot_name_a_key(name):
    assert not note.is_key_name(name)


@needs_corpus
def test_checkpoints_of_another_implementation_are_read():
    for path in TESSERA.glob("checkpoint*"):
        signed = note.parse(path.read_bytes())
        assert signed.encode().encode() == path.read_bytes()
        checkpoint = note.parse_checkpoint(signed.text)
        assert checkpoint.origin == "example.com/log/testdata"
        # The first four bytes of the key's published name.
        assert signed.signatures[0].key_id.hex() == "33d7b496"
