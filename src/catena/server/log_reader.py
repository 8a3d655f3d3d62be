"""A log behind a URL: its files by HTTP GET, as tlog-tiles serves them.

Only what a log has to be read with: paths that ``audit.tiles`` makes, bodies that are bounded, no redirects.
Full tiles never change, so those that were read are kept in a folder, if one is given.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from catena.audit import tiles
from catena.audit.reader import LogUnreadable
from catena.errors import FormatError, UsageError

TIMEOUT = 30.0
SCHEMES = ("https://", "http://")


class BadLogAddress(UsageError):
    """An address that no log can be read from."""

    code = "bad-log-address"
    remedy = "Give the address below which `checkpoint` lies, such as https://catena.example/log."


class LogUnreachable(LogUnreadable):
    """The log's server does not answer, or not with the log."""

    code = "log-unreachable"
    remedy = "Check the address, the CA and the token; try again if the server was starting."


class UrlReader:
    """Reads a remote log. Close it, or use it as a context manager."""

    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        token: str | None = None,
        kept: Path | None = None,
    ) -> None:
        if not url.startswith(SCHEMES) or "?" in url or "#" in url:
            raise BadLogAddress("not the address of a log", got=ascii(url[:120]))
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        try:
            verify = ssl.create_default_context(cafile=None if ca is None else str(ca))
        except (OSError, ssl.SSLError) as error:
            raise BadLogAddress(f"cannot use the CA file {ca}") from error
        self._url = url.rstrip("/")
        self._kept = kept
        self._client: httpx.Client = httpx.Client(
            verify=verify, headers=headers, timeout=TIMEOUT, follow_redirects=False, trust_env=False
        )

    def read(self, name: str, limit: int) -> bytes | None:
        """As ``LogReader`` says; raises ``LogUnreachable``."""
        full = _is_full(name)
        if full and (found := self._from_kept(name)) is not None:
            return found
        content = self._get(name, limit)
        if full and content is not None and len(content) <= limit:
            self._keep(name, content)
        return content

    def _get(self, name: str, limit: int) -> bytes | None:
        try:
            with self._client.stream("GET", f"{self._url}/{name}") as answer:
                if answer.status_code == httpx.codes.NOT_FOUND:
                    return None
                if answer.status_code != httpx.codes.OK:
                    raise LogUnreachable(
                        f"the log's server does not give {name}", got=f"HTTP {answer.status_code}"
                    )
                content = b""
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > limit:
                        break
                return content[: limit + 1]
        except httpx.HTTPError as error:
            raise LogUnreachable(
                f"the log cannot be read: {type(error).__name__}", got=self._url
            ) from error

    def _from_kept(self, name: str) -> bytes | None:
        try:
            return None if self._kept is None else (self._kept / name).read_bytes()
        except OSError:
            return None

    def _keep(self, name: str, content: bytes) -> None:
        if self._kept is not None:
            path = self._kept / name
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.replace(path)

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _is_full(name: str) -> bool:
    try:
        return not tiles.parse_path(name).partial
    except FormatError:
        return False
