from __future__ import annotations

import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import ima, ima_ascii
from catena.formats.ima_ascii import parse
from small_logs import IMA_BINARY, IMA_ENTRIES, IMA_TEXT, ima_entry, ima_line

HEX = b"5a" * 20
LINE = b"10 " + HEX + b" ima-ng sha256:" + b"11" * 32 + b" /bin/sh"


def test_text_gives_the_entries_of_the_binary_log():
    assert parse(IMA_TEXT) == IMA_ENTRIES == ima.parse(IMA_BINARY)


def test_the_old_template_is_read():
    (entry,) = parse(b"10 " + HEX + b" ima " + b"22" * 20 + b" /etc/a b\n")
    assert entry.fields == (b"\x22" * 20, b"/etc/a b")
    assert ima.parse(ima.encode(entry)) == (entry,)


@pytest.mark.parametrize("template", ["ima-ngv2", "ima-sigv2"])
def test_templates_with_a_digest_type_are_read(template):
    line = LINE.replace(b"ima-ng sha256:", template.encode() + b" verity:sha256:")
    (entry,) = parse(line)
    assert entry.fields[0] == b"verity:sha256:\0" + b"\x11" * 32


def test_a_buffer_is_read():
    (entry,) = parse(LINE.replace(b"ima-ng", b"ima-buf").replace(b"/bin/sh", b"dm_table 6162"))
    assert entry.fields[1:] == (b"dm_table\0", b"ab")


@pytest.mark.parametrize("end", [b"", b" "])
def test_a_missing_signature_is_empty(end):
    (entry,) = parse(LINE.replace(b"ima-ng", b"ima-sig") + end)
    assert entry.fields[1:] == (b"/bin/sh\0", b"")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (b" 0302 sha1:55 3080", (b"\3\2", b"sha1:\0\x55", b"\x30\x80")),
        (b"  sha1:55 3080", (b"", b"sha1:\0\x55", b"\x30\x80")),
        (b" 0302  ", (b"\3\2", b"", b"")),
        (b"   ", (b"", b"", b"")),
    ],
)
def test_an_appended_signature_is_read(text, fields):
    (entry,) = parse(LINE.replace(b"ima-ng", b"ima-modsig") + text)
    assert entry.fields[1:] == (b"/bin/sh\0", *fields)
    assert ima.parse(ima.encode(entry)) == (entry,)


@given(
    path=st.binary(min_size=1, max_size=60).filter(
        lambda one: b"\n" not in one and b"\0" not in one
    ),
    signature=st.binary(min_size=1, max_size=30),
)
def test_any_printable_entry_round_trips(path, signature):
    entry = ima_entry(0, path, signature, template="ima-sig")
    assert parse(ima_line(entry)) == (entry,)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"10",
        LINE.replace(b"10 ", b"24 ", 1),
        LINE.replace(HEX, HEX[:-2]),
        LINE.replace(b"sha256:11", b"sha256:1"),
        LINE.replace(b"ima-ng", b"d-ng|n-ng"),
        LINE.replace(b"ima-ng", b"ima"),
        LINE.replace(b"ima-ng", b"ima-buf"),
        LINE.replace(b"ima-ng", b"ima-modsig"),
        LINE.replace(b"ima-ng", b"ima-modsig") + b" 0302 sha1 3080",
        LINE.upper(),
    ],
)
def test_another_line_is_malformed(line):
    with pytest.raises(FormatError) as caught:
        parse(IMA_TEXT + line)
    assert caught.value.offset == len(IMA_TEXT)


def test_lines_entries_and_log_are_bounded(monkeypatch):
    with pytest.raises(FormatError, match="line is too long"):
        parse(LINE + b"x" * ima_ascii.MAX_LINE)
    monkeypatch.setattr(ima, "MAX_ENTRIES", 1)
    with pytest.raises(FormatError, match="too many entries"):
        parse(IMA_TEXT)
    monkeypatch.setattr(ima, "MAX_LOG", 10)
    with pytest.raises(FormatError, match="too large"):
        parse(IMA_TEXT)


def test_flipped_bits_are_accepted_or_refused_cleanly():
    assert all(refuses_cleanly(parse, wire) for wire in bit_flips(IMA_TEXT))
