from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.containers.wrapper import files, protocol
from catena.containers.wrapper.protocol import BadRequest, Request, parse_request
from catena.errors import Refusal

REQUEST = Request(Path("/work"), Path("/usr/sbin/runc"), ("--root", "", "create", "ä", "c1"))
WORDS = st.lists(st.text(st.characters(exclude_characters="\0"), max_size=20), min_size=1)


def test_client_and_gate_agree():
    source = Path(files.__file__).with_name("gate-client.c").read_text()
    assert f'#define MAGIC "{protocol.MAGIC.decode()}"' in source
    assert "#define MAX_FRAME ((size_t)1 << 20)" in source
    assert protocol.MAX_FRAME == 1 << 20


@given(WORDS)
def test_request_round_trips(words):
    try:
        data = Request(Path("/a b"), Path("/r"), tuple(words)).encode()
    except UnicodeEncodeError:  # a lone surrogate that no file system gives
        return
    assert parse_request(data) == Request(Path("/a b"), Path("/r"), tuple(words))


def test_words_keep_bytes_that_are_no_text():
    raw = protocol.MAGIC + b"\0/\0/r\0create\0\xff\xfe"
    assert parse_request(raw).encode() == raw


@pytest.mark.parametrize("cut", range(len(protocol.MAGIC) + 25))
def test_truncated_head_is_refused_or_another_request(cut):
    data = REQUEST.encode()[:cut]
    with contextlib.suppress(BadRequest):
        assert parse_request(data) != REQUEST


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"catena-gate/2\0/\0/r\0create\0c",
        protocol.MAGIC,
        protocol.MAGIC + b"\0/\0/r",
        protocol.MAGIC + b"\0relative\0/r\0create",
        protocol.MAGIC + b"\0/\0runc\0create",
        protocol.MAGIC + b"\0/\0/r" + b"\0x" * (protocol.MAX_WORDS + 1),
        b"x" * (protocol.MAX_FRAME + 1),
    ],
)
def test_what_the_wrapper_never_sends_is_refused(data):
    with pytest.raises(BadRequest):
        parse_request(data)


@given(st.text())
def test_denial_is_one_code_and_one_message_whatever_it_says(text):
    answer = protocol.deny(Refusal(text))
    assert answer.split(b"\0")[:2] == [b"deny", b"refused"]
    assert answer.count(b"\0") == 2
    assert len(answer) < 2048
    assert answer.isascii()
