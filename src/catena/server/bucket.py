"""A log's files in S3-compatible object storage, over HTTP.

Every write is conditional: a tile is stored only where nothing is (``If-None-Match: *``), a
checkpoint only over the one that was read (``If-Match``). A service that overlooks these
headers would let an older server overwrite a newer checkpoint, so ``require_conditions`` asks
it once, when the log is opened.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, urlsplit

import httpx

from catena.audit.reader import LogUnreadable
from catena.audit.storage import CheckpointMoved, LogUnwritable, TileConflict
from catena.audit.tiles import CHECKPOINT, MAX_BUNDLE, Tile
from catena.errors import Unavailable, UsageError
from catena.formats import sigv4
from catena.formats.sigv4 import Credentials

MAX_CHECKPOINT = 1_000_000
TIMEOUT = 10.0
"""Seconds for a connection, and for each piece of an answer."""
_MAX_LISTING = 4_000_000
_PROBE = "probe"
_OK, _NOT_FOUND, _CONFLICT, _FAILED = 200, 404, 409, 412
_KEY = re.compile(r"<Key>([^<]*)</Key>")
_MORE = re.compile(r"<NextContinuationToken>([^<]*)</NextContinuationToken>")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*")


class BadBucket(UsageError):
    """An address of object storage that cannot be used."""

    code = "bad-bucket"
    remedy = (
        "Write s3+https://HOST[:PORT]/BUCKET[/PREFIX]; plain s3+http:// only to this machine's own "
        "loopback address."
    )


class BucketUnconditional(Unavailable):
    """Object storage that overlooks conditions on a write."""

    code = "bucket-unconditional"
    remedy = (
        "Use a service and a version that obey If-None-Match and If-Match on PUT, or keep the log "
        "in the database."
    )


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where: ``endpoint`` without a path, ``prefix`` empty or ending in a slash."""

    endpoint: str
    name: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Bucket:
        """Read ``s3+https://HOST[:PORT]/BUCKET[/PREFIX]``. Raises ``BadBucket``."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError as error:
            raise BadBucket("not an address of object storage", got=ascii(url[:100])) from error
        scheme = parts.scheme.removeprefix("s3+")
        name, _, prefix = parts.path.removeprefix("/").partition("/")
        prefix = f"{prefix}/" if prefix and not prefix.endswith("/") else prefix
        usable = scheme == "https" or (scheme == "http" and _is_loopback(host))
        plain = not (parts.query or parts.fragment or "@" in parts.netloc)
        if not (
            usable and plain and host and _BUCKET.fullmatch(name) and _PREFIX.fullmatch(prefix)
        ):
            raise BadBucket("not an address of object storage", got=ascii(url[:100]))
        return cls(f"{scheme}://{parts.netloc}", name, prefix)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content: bytes
    etag: str


class BucketStorage:
    """A ``LogStorage`` below one prefix of one bucket."""

    def __init__(
        self,
        bucket: Bucket,
        credentials: Credentials,
        *,
        region: str,
        now: Callable[[], datetime],
    ) -> None:
        self._bucket = bucket
        self._credentials = credentials
        self._region = region
        self._now = now
        self._client = httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False)

    def require_conditions(self) -> None:
        """See that the service obeys conditions. Raises ``BucketUnconditional``, ``LogUnwritable``."""
        nothing, other = {"if-none-match": "*"}, {"if-match": f'"{"0" * 32}"'}
        if self._put(_PROBE, b"probe", nothing).status not in (_OK, _FAILED):
            raise LogUnwritable("the log's object storage takes no objects")
        for condition in (nothing, other):
            if self._put(_PROBE, b"probe", condition).status != _FAILED:
                raise BucketUnconditional(
                    "the object storage overlooked a condition", got=next(iter(condition))
                )

    def read(self, name: str, limit: int) -> bytes | None:
        """As ``LogReader``. Raises ``LogUnreadable``."""
        answer = self._get(name, limit)
        return None if answer is None else answer.content

    def put(self, files: Sequence[tuple[Tile, bytes]]) -> None:
        """One object each. Raises ``TileConflict``, ``LogUnwritable``."""
        for tile, content in files:
            status = self._put(tile.path, content, {"if-none-match": "*"}).status
            if status == _FAILED:
                if self.read(tile.path, MAX_BUNDLE) != content:
                    raise TileConflict("a tile has other content", got=tile.path)
            elif status != _OK:
                raise LogUnwritable("the log's object storage refused a tile", got=f"{status}")

    def swap_checkpoint(self, old: bytes | None, new: bytes) -> None:
        """One conditional write. Raises ``CheckpointMoved``, ``LogUnwritable``."""
        conditions = [{"if-none-match": "*"}]
        if old is not None:
            there = self._get(CHECKPOINT, MAX_CHECKPOINT)
            if there is None or there.content != old:
                raise CheckpointMoved("another checkpoint is published")
            # Ceph before 18 compares without the quotes that belong to an ETag.
            conditions = [{"if-match": there.etag}, {"if-match": there.etag.strip('"')}]
        status = _FAILED
        for condition in conditions:
            if status == _FAILED:
                status = self._put(CHECKPOINT, new, condition).status
        if status in (_FAILED, _CONFLICT, _NOT_FOUND):
            raise CheckpointMoved("another checkpoint is published")
        if status != _OK:
            raise LogUnwritable("the log's object storage refused a checkpoint", got=f"{status}")

    def drop_partials(self, tile: Tile) -> None:
        """At once, if the service lets it."""
        with contextlib.suppress(LogUnreadable, LogUnwritable):
            for name in tuple(self._list(f"{tile.folder}/")):
                self._ask("DELETE", name, limit=_MAX_LISTING)

    def files(self) -> Iterator[str]:
        """All paths. Raises ``LogUnreadable``."""
        return (name for name in self._list("") if name != _PROBE)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _get(self, name: str, limit: int) -> _Answer | None:
        try:
            answer = self._ask("GET", name, limit=limit)
        except LogUnwritable as error:
            raise LogUnreadable(f"cannot read {name}: the object storage failed") from error
        if answer.status == _NOT_FOUND:
            return None
        if answer.status != _OK:
            raise LogUnreadable(f"cannot read {name}", got=f"{answer.status}")
        return answer

    def _put(self, name: str, content: bytes, condition: Mapping[str, str]) -> _Answer:
        return self._ask("PUT", name, content=content, headers=condition, limit=_MAX_LISTING)

    def _list(self, below: str) -> Iterator[str]:
        prefix = self._bucket.prefix
        query = {"list-type": "2", "prefix": prefix + below}
        while True:
            answer = self._ask("GET", "", query=query, limit=_MAX_LISTING)
            if answer.status != _OK:
                raise LogUnreadable("cannot list the log", got=f"{answer.status}")
            text = answer.content.decode(errors="replace")
            # Names of a log's files have no character that XML would write in another way.
            yield from (key.removeprefix(prefix) for key in _KEY.findall(text))
            more = _MORE.search(text)
            if more is None:
                return
            query["continuation-token"] = more[1]

    def _ask(
        self,
        method: str,
        name: str,
        *,
        limit: int,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> _Answer:
        """One request; at most ``limit`` + 1 bytes of its answer. Raises ``LogUnwritable``."""
        key = f"/{quote(self._bucket.prefix + name, safe='/')}" if name else ""
        path = f"/{self._bucket.name}{key}"
        host = urlsplit(self._bucket.endpoint).netloc
        signed = sigv4.sign(
            method,
            path,
            query or {},
            {"host": host, **(headers or {})},
            content,
            credentials=self._credentials,
            region=self._region,
            at=self._now(),
        )
        url = f"{self._bucket.endpoint}{path}" + (f"?{sigv4.encode_query(query)}" if query else "")
        try:
            with self._client.stream(
                method, url, headers=signed, content=content or None
            ) as answer:
                body = b""
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > limit:
                        break
                etag = answer.headers.get("etag", "")
                return _Answer(answer.status_code, body[: limit + 1], etag)
        except httpx.HTTPError as error:
            # Only the kind: an error's text may quote the request.
            raise LogUnwritable(
                "the log's object storage does not answer", got=type(error).__name__
            ) from error
