from __future__ import annotations

import asyncio

import msgspec
import pytest
from starlette.requests import Request

from catena.formats.nodeapi import ErrorBody
from catena.server.body import BodyReader
from catena.server.faults import BodyTooLarge, BodyTooSlow, Busy


def request(chunks: list[bytes], declared: int | None = None, pause: float = 0.0) -> Request:
    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    left = list(chunks)

    async def receive():
        await asyncio.sleep(pause)
        chunk = left.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    return Request({"type": "http", "headers": headers, "method": "POST", "path": "/"}, receive)


async def whole(reader: BodyReader, *arguments, **options) -> bytes:
    async with reader.reading(*arguments, **options) as body:
        await asyncio.sleep(0)
        return body


def read(reader: BodyReader, *arguments, **options) -> bytes:
    return asyncio.run(whole(reader, *arguments, **options))


def test_a_body_within_the_limit_is_read_whole():
    assert read(BodyReader(10, 100, 5), request([b"12345", b"67890"])) == b"1234567890"


def test_a_declared_length_above_the_limit_is_refused_before_reading():
    reader = BodyReader(10, 100, 5)
    with pytest.raises(BodyTooLarge):
        read(reader, request([], declared=11))


@pytest.mark.parametrize("declared", [None, 3])
def test_a_body_is_counted_while_it_streams_whatever_was_declared(declared):
    with pytest.raises(BodyTooLarge):
        read(BodyReader(10, 100, 5), request([b"123456", b"78901"], declared=declared))


def test_a_route_can_have_a_lower_limit_but_no_higher_one():
    with pytest.raises(BodyTooLarge):
        read(BodyReader(10, 100, 5), request([b"12345"]), limit=4)
    with pytest.raises(BodyTooLarge):
        read(BodyReader(10, 100, 5), request([b"12345678901"]), limit=40)


def test_a_body_that_trickles_is_given_up():
    with pytest.raises(BodyTooSlow):
        read(BodyReader(10, 100, 0.05), request([b"1"] * 9, pause=0.03))


def test_bodies_share_one_budget_and_give_it_back():
    reader = BodyReader(10, 10, 5)

    async def two() -> list[object]:
        slow = [whole(reader, request([b"12345", b"12345"], pause=0.01)) for _ in range(2)]
        return await asyncio.gather(*slow, return_exceptions=True)

    kinds = {type(end) for end in asyncio.run(two())}
    assert kinds == {bytes, Busy}
    assert read(reader, request([b"1234567890"])) == b"1234567890"


def test_a_body_over_the_limit_is_413_over_http_without_a_content_length(api):
    async def endless():
        for _ in range(100):
            yield b"x" * 65_536

    response = api.http.post("/v1/nonce", content=endless())
    body = msgspec.json.decode(response.content, type=ErrorBody)
    assert (response.status_code, body.code) == (413, "body-too-large")
