"""Verifier keys, cosignatures and requests to witnesses, strict to the letter of C2SP."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import addcheckpoint, cosignature, note, verifierkey
from catena.formats.addcheckpoint import AddCheckpoint
from catena.formats.cosignature import Cosignature
from catena.formats.note import COSIGNATURE, ED25519, Checkpoint, Note, NoteSignature
from catena.formats.verifierkey import VerifierKey

SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
CHECKPOINT = Checkpoint("log.example/a", 12, bytes(range(32)))
NOTE = Note(CHECKPOINT.encode(), (NoteSignature("log.example/a", b"\x01\x02\x03\x04", b"s" * 64),))
HASH = bytes(range(32))
REQUEST = AddCheckpoint(8, (HASH, HASH[::-1]), NOTE, CHECKPOINT)
BODY = REQUEST.encode()
LINE = note.encode_base64(HASH)

names = st.text(min_size=1, max_size=20).filter(note.is_key_name)


# Verifier keys -----------------------------------------------------------------------------


def test_a_published_key_is_read():
    key = verifierkey.parse(SUMDB)
    assert (key.name, key.kind, key.key_id.hex()) == ("sum.golang.org", ED25519, "033de0ae")
    assert key.encode() == SUMDB


@given(names, st.sampled_from([ED25519, COSIGNATURE]), st.binary(min_size=32, max_size=32))
def test_every_key_survives_its_encoding(name, kind, public_key):
    key = VerifierKey(name, kind, public_key)
    assert verifierkey.parse(key.encode()) == key


def test_one_key_has_another_id_for_another_kind_and_another_name():
    ids = {VerifierKey(n, k, HASH).key_id for n in ("a", "b") for k in (ED25519, COSIGNATURE)}
    assert len(ids) == 4


def test_a_key_cut_or_lengthened_anywhere_is_refused():
    for end in range(len(SUMDB)):
        with pytest.raises(FormatError):
            verifierkey.parse(SUMDB[:end])
    for more in (" ", "\n", "A", "=", "+"):
        with pytest.raises(FormatError):
            verifierkey.parse(SUMDB + more)
        with pytest.raises(FormatError):
            verifierkey.parse(more + SUMDB)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SUMDB.replace("033de0ae", "033DE0AE"), "key id"),
        (SUMDB.replace("033de0ae", "33de0ae"), "key id"),
        (SUMDB.replace("033de0ae", "033de0af"), "another key"),
        (SUMDB.replace("sum.", "sum "), "name"),
        (SUMDB.replace("sum.golang.org", "go.sum"), "another key"),
        (f"a+00000000+{note.encode_base64(bytes([2]) + HASH)}", "kind"),
        (f"a+00000000+{note.encode_base64(bytes([6]) + bytes(1312))}", "too long"),
        (f"a+00000000+{note.encode_base64(bytes([6]) + bytes(600))}", "kind"),
        (f"a+00000000+{note.encode_base64(bytes([1]) + bytes(31))}", "length"),
        (f"a+00000000+{note.encode_base64(bytes([1]) + bytes(33))}", "length"),
        ("a+00000000+", "kind"),
        ("a+00000000", "three parts"),
        ("+00000000+AAAA", "name"),
    ],
)
def test_a_key_in_another_spelling_is_refused(text, why):
    with pytest.raises(FormatError, match=why):
        verifierkey.parse(text)


# Cosignatures ------------------------------------------------------------------------------


def test_the_message_is_laid_out_as_the_specification_draws_it():
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert cosignature.message(text, 1679315147) == (
        b"cosignature/v1\n"
        b"time 1679315147\n"
        b"example.com/behind-the-sofa\n"
        b"20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


def test_the_cosignature_of_the_specification_is_read():
    blob = (
        "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZC"
        "B9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA=="
    )
    (line,) = note.parse_signatures(f"— witness.example.com/w1 {blob}\n".encode())
    found = cosignature.parse(line.signature)
    assert found.time == 1679315147
    assert found.encode() == line.signature


@given(st.integers(0, cosignature.MAX_TIME), st.binary(min_size=64, max_size=64))
def test_every_cosignature_survives_its_encoding(time, signature):
    made = Cosignature(time, signature)
    assert cosignature.parse(made.encode()) == made


def test_a_cosignature_of_another_length_or_time_is_refused():
    data = Cosignature(1, bytes(64)).encode()
    for size in range(len(data)):
        with pytest.raises(FormatError):
            cosignature.parse(data[:size])
    with pytest.raises(FormatError, match="trailing"):
        cosignature.parse(data + b"\0")
    with pytest.raises(FormatError, match="time"):
        cosignature.parse(b"\x80" + data[1:])


# Requests to a witness ---------------------------------------------------------------------


def test_a_request_is_laid_out_as_the_specification_draws_it():
    assert f"old 8\n{LINE}\n{note.encode_base64(HASH[::-1])}\n\n{NOTE.encode()}".encode() == BODY
    assert addcheckpoint.parse(BODY) == REQUEST


@given(
    st.integers(0, note.MAX_TREE_SIZE),
    st.lists(st.binary(min_size=32, max_size=32), max_size=addcheckpoint.MAX_PROOF),
)
def test_every_request_survives_its_encoding(old, proof):
    request = AddCheckpoint(old, tuple(proof), NOTE, CHECKPOINT)
    assert addcheckpoint.parse(request.encode()) == request


@pytest.mark.parametrize(
    "old", ["", "-1", "+1", "01", "00", "1.0", "0x1", " 1", "1 ", "1_0", "١", "8\r", str(2**63)]
)
def test_an_old_size_in_another_spelling_is_refused(old):
    with pytest.raises(FormatError):
        addcheckpoint.parse(BODY.replace(b"old 8", f"old {old}".encode()))


@pytest.mark.parametrize("first", ["", "old", "Old 8", "old  8", "old\t8", "new 8", "8", LINE])
def test_another_first_line_is_refused(first):
    with pytest.raises(FormatError):
        addcheckpoint.parse(BODY.replace(b"old 8", first.encode()))


@pytest.mark.parametrize(
    "line",
    [LINE[:-1], LINE[:-2] + "9=", LINE + " ", " " + LINE, "AAAA", "=", "é" * 44, LINE + "\r"],
)
def test_a_proof_line_that_is_no_hash_is_refused(line):
    with pytest.raises(FormatError):
        addcheckpoint.parse(BODY.replace(LINE.encode(), line.encode()))


def test_one_hash_too_many_is_refused():
    proof = (HASH,) * (addcheckpoint.MAX_PROOF + 1)
    with pytest.raises(FormatError):
        addcheckpoint.parse(AddCheckpoint(8, proof, NOTE, CHECKPOINT).encode())


def test_a_head_without_end_is_not_searched_beyond_its_bound():
    with pytest.raises(FormatError, match="empty line"):
        addcheckpoint.parse((b"old 8\n" + LINE.encode() + b"\n") * 100 + b"\n" + BODY)


def test_a_request_above_its_bound_is_refused():
    with pytest.raises(FormatError, match="too large"):
        addcheckpoint.parse(BODY + b"x" * addcheckpoint.MAX_REQUEST)


def test_a_request_cut_at_any_byte_is_refused():
    for end in range(len(BODY)):
        with pytest.raises(FormatError):
            addcheckpoint.parse(BODY[:end])


def test_a_fault_in_the_checkpoint_is_found_where_it_is():
    data = BODY.replace(b"\n12\n", b"\n012\n")
    with pytest.raises(FormatError) as caught:
        addcheckpoint.parse(data)
    assert data[caught.value.offset :].startswith(b"012\n")


@given(st.binary(max_size=300))
def test_whatever_parses_is_written_the_same_way_again(data):
    for tail in (data, b"old 0\n\n" + data, BODY[:60] + data):
        with contextlib.suppress(FormatError):
            assert addcheckpoint.parse(tail).encode() == tail


# Answers -----------------------------------------------------------------------------------


@given(st.integers(0, note.MAX_TREE_SIZE))
def test_every_size_is_read_as_it_was_answered(size):
    assert addcheckpoint.parse_size_answer(addcheckpoint.size_answer(size)) == size


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b"5",
        b"05\n",
        b"-5\n",
        b"5\r\n",
        b"5\n\n",
        b" 5\n",
        b"\xb2\n",
        b"9" * 19 + b"9\n",
    ],
)
def test_a_size_in_another_spelling_is_not_an_answer(answer):
    with pytest.raises(FormatError):
        addcheckpoint.parse_size_answer(answer)


def test_lines_of_signatures_are_read_as_they_were_answered():
    lines = (NOTE.signatures[0], NoteSignature("w", b"abcd", b"x" * 72))
    data = "".join(f"{one.encode()}\n" for one in lines).encode()
    assert note.parse_signatures(data) == lines


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: b"\n" + data,
        lambda data: b"\xff" + data,
        lambda data: data * (note.MAX_SIGNATURES + 1),
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"x" * (note.MAX_NOTE + 1),
    ],
)
def test_lines_that_are_not_signatures_are_not_an_answer(change):
    with pytest.raises(FormatError):
        note.parse_signatures(change(f"{NOTE.signatures[0].encode()}\n".encode()))
