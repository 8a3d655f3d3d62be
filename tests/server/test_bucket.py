"""A log's files in object storage: a real service where it matters, a small one that errs elsewhere."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from catena.audit.reader import LogUnreadable
from catena.audit.storage import CheckpointMoved, LogUnwritable, TileConflict
from catena.audit.tiles import Tile
from catena.formats import sigv4
from catena.formats.sigv4 import Credentials
from catena.server import bucket as buckets
from catena.server.bucket import BadBucket, Bucket, BucketStorage, BucketUnconditional
from ceph import CREDENTIALS, REGION


def now():
    return datetime.now(UTC)


def storage_at(url, credentials=CREDENTIALS):
    return BucketStorage(Bucket.parse(url), credentials, region=REGION, now=now)


@pytest.fixture(scope="module")
def address(ceph):
    return ceph.new_bucket("storage")


@pytest.fixture
def storage(address, request):
    name = "".join(one if one.isalnum() else "-" for one in request.node.name)
    opened = storage_at(f"{address}/{name}")
    yield opened
    opened.close()


def test_the_service_obeys_conditions(storage):
    storage.require_conditions()
    storage.require_conditions()
    assert list(storage.files()) == []


def test_a_full_tile_is_stored_once(storage):
    for _ in range(2):
        storage.put([(Tile(0, 0), b"a" * 8192), (Tile(0, 1, 2), b"b" * 64)])
    with pytest.raises(TileConflict):
        storage.put([(Tile(0, 0), b"c" * 8192)])
    assert storage.read("tile/0/000", 8192) == b"a" * 8192
    assert storage.read("tile/0/000", 10) == b"a" * 11
    assert storage.read("tile/0/002", 8192) is None


def test_a_checkpoint_is_swapped_only_for_the_one_that_is_there(storage):
    storage.swap_checkpoint(None, b"one")
    for old in (None, b"other"):
        with pytest.raises(CheckpointMoved):
            storage.swap_checkpoint(old, b"two")
    storage.swap_checkpoint(b"one", b"two")
    assert storage.read("checkpoint", 100) == b"two"


def test_a_checkpoint_that_moves_between_read_and_write_is_not_overwritten(storage, monkeypatch):
    storage.swap_checkpoint(None, b"one")
    real = storage._get

    def overtaken(name, limit):
        answer = real(name, limit)
        monkeypatch.setattr(storage, "_get", real)
        storage.swap_checkpoint(b"one", b"newer")
        return answer

    monkeypatch.setattr(storage, "_get", overtaken)
    with pytest.raises(CheckpointMoved):
        storage.swap_checkpoint(b"one", b"older")
    assert storage.read("checkpoint", 100) == b"newer"


def test_more_files_than_one_listing_has_are_listed_and_partial_ones_dropped(storage, monkeypatch):
    storage.put([(Tile(None, 3, width), b"x") for width in range(1, 6)] + [(Tile(0, 7), b"y")])
    real = sigv4.encode_query
    monkeypatch.setattr(  # two names in each listing
        sigv4, "encode_query", lambda query: real(dict(query) | {"max-keys": "2"} if query else {})
    )
    assert len(list(storage.files())) == 6
    storage.drop_partials(Tile(None, 3))
    assert list(storage.files()) == ["tile/0/007"]


def test_another_secret_is_refused(address):
    stranger = storage_at(address, Credentials(CREDENTIALS.access_key, "guessed"))
    with pytest.raises(LogUnwritable):
        stranger.require_conditions()
    with pytest.raises(LogUnreadable, match="403"):
        stranger.read("checkpoint", 100)
    with pytest.raises(LogUnreadable, match="403"):
        list(stranger.files())
    with pytest.raises(LogUnwritable, match="403") as caught:
        stranger.put([(Tile(0, 0), b"x")])
    assert "guessed" not in f"{caught.value!r} {caught.value} {stranger._credentials!r}"
    stranger.close()


def test_a_service_that_does_not_answer_refuses(storage, ceph, monkeypatch):
    storage._client.timeout = 0.5
    ceph.gateway(signal.SIGSTOP)
    try:
        with pytest.raises(LogUnwritable, match="Timeout"):
            storage.put([(Tile(0, 0), b"x")])
        with pytest.raises(LogUnreadable):
            storage.read("checkpoint", 100)
        storage.drop_partials(Tile(0, 0))
    finally:
        ceph.gateway(signal.SIGCONT)


class Careless(BaseHTTPRequestHandler):
    """A service that takes every write, whatever its condition."""

    def do_PUT(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


def test_a_service_that_overlooks_conditions_is_not_used():
    with ThreadingHTTPServer(("127.0.0.1", 0), Careless) as service:
        thread = Thread(target=service.serve_forever)
        thread.start()
        storage = storage_at(f"s3+http://127.0.0.1:{service.server_port}/bucket")
        with pytest.raises(BucketUnconditional):
            storage.require_conditions()
        storage.close()
        service.shutdown()
        thread.join()


def test_addresses():
    assert Bucket.parse("s3+https://s3.example.org:9000/logs/a/b") == Bucket(
        "https://s3.example.org:9000", "logs", "a/b/"
    )
    assert Bucket.parse("s3+https://s3.example.org/logs").prefix == ""
    assert Bucket.parse("s3+http://[::1]:9000/logs").endpoint == "http://[::1]:9000"


@pytest.mark.parametrize(
    "url",
    [
        "s3+http://s3.example.org/logs",
        "s3+https://s3.example.org/",
        "s3+https://s3.example.org/Logs",
        "s3+https:///logs",
        "s3+https://user:pw@s3.example.org/logs",
        "s3+https://s3.example.org/logs?x=1",
        "s3+https://s3.example.org/logs/../other",
        "s3+https://s3.example.org/logs//x",
        "s3+https://s3.example.org:port/logs",
        "s3+ftp://s3.example.org/logs",
        "https://[::1/logs",
    ],
)
def test_addresses_that_cannot_be_used_are_refused(url):
    with pytest.raises(BadBucket):
        Bucket.parse(url)


def test_a_signature_is_the_one_that_the_specification_shows():
    # "Signature Calculations for the Authorization Header", example: GET object.
    signed = sigv4.sign(
        "GET",
        "/test.txt",
        {},
        {"host": "examplebucket.s3.amazonaws.com", "range": "bytes=0-9"},
        b"",
        credentials=Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        region="us-east-1",
        at=datetime(2013, 5, 24, tzinfo=UTC),
    )
    assert signed["authorization"].endswith(
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    assert buckets.TIMEOUT > 0
