from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import tlogproof
from catena.formats.tlogproof import TlogProof

HASH = base64.b64encode(bytes(32)).decode()
TEXT = f"c2sp.org/tlog-proof@v1\nextra aGVsbG8=\nindex 5\n{HASH}\n\nexample.org/log\n6\n{HASH}\n\n— x y\n"


def test_the_specifications_shape_is_read():
    proof = tlogproof.parse(TEXT.encode())
    assert (proof.index, proof.hashes, proof.extra) == (5, (bytes(32),), b"hello")
    assert proof.checkpoint == f"example.org/log\n6\n{HASH}\n\n— x y\n"
    assert proof.encode() == TEXT


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | st.binary(max_size=100),
)
def test_what_is_written_is_read(index, hashes, checkpoint, extra):
    proof = TlogProof(index, tuple(hashes), checkpoint, extra)
    assert tlogproof.parse(proof.encode().encode()) == proof


@given(
    st.binary(max_size=200) | st.text().map(lambda text: f"c2sp.org/tlog-proof@v1\n{text}".encode())
)
def test_whatever_is_read_is_written_the_same_way(data):
    try:
        proof = tlogproof.parse(data)
    except FormatError:
        return
    assert proof.encode().encode() == data


@pytest.mark.parametrize(
    "change",
    [
        ("@v1", "@v2"),
        ("index 5", "index 05"),
        ("index 5", "index +5"),
        ("index 5", "index -5"),
        ("index 5", "index 5_0"),
        ("index 5", "index  5"),
        ("index 5", "index ٥"),
        ("index 5", "index 9223372036854775808"),
        ("index 5\n", ""),
        ("index 5", "Index 5"),
        ("extra aGVsbG8=", "extra aGVsbG8"),
        ("extra aGVsbG8=", "extra aGVsbG9="),
        ("extra aGVsbG8=", "more aGVsbG8="),
        ("extra aGVsbG8=\nindex 5", "index 5\nextra aGVsbG8="),
        (HASH, HASH[:-4]),
        (HASH, HASH[:-1]),
        (HASH, f" {HASH}"),
        (f"{HASH}\n", f"{HASH}\n" * 64),
        ("\n\n", "\n"),
        ("\n", "\r\n"),
    ],
)
def test_another_spelling_is_refused(change):
    changed = TEXT.replace(*change, 1) if change[0] != "\n\n" else TEXT.replace(*change)
    with pytest.raises(FormatError):
        tlogproof.parse(changed.encode())


def test_what_is_too_long_or_no_text_is_refused():
    with pytest.raises(FormatError):
        tlogproof.parse(b"c2sp.org/tlog-proof@v1\n" + b"a" * tlogproof.MAX_PROOF)
    with pytest.raises(FormatError):
        tlogproof.parse(b"c2sp.org/tlog-proof@v1\n\xff")
    long = TlogProof(0, (), "x", bytes(tlogproof.MAX_EXTRA + 1))
    with pytest.raises(FormatError):
        tlogproof.parse(long.encode().encode())
