"""HTTP to one registry: who is asked, with which credentials, and how much of the answer is read.

- Plain HTTP only where it was asked for and the registry is this machine.
- Credentials go to the registry and to the token service that it names over TLS, never through a redirect.
- Redirects are followed for reading only, to TLS (or this machine), a few times.
- Every answer has a size limit, and every exchange a time limit.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx
import msgspec

from catena.errors import FormatError, Unavailable, UsageError

SECONDS = 30.0
MAX_REDIRECTS = 5
MAX_TOKEN_ANSWER = 64 * 1024
_MAX_CHALLENGE = 2048
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class PlainHttp(UsageError):
    """Plain HTTP to another machine: everybody between could answer."""

    code = "plain-http"
    remedy = "Use TLS. Plain HTTP is for registries on this machine, and only with --plain-http."


class RegistryUnreachable(Unavailable):
    """A registry that does not answer as one."""

    code = "registry-unreachable"
    remedy = "Check the registry's name, the network, and its certificate."


class RegistryDenied(Unavailable):
    """A registry that wants other credentials."""

    code = "registry-denied"
    remedy = "Give credentials with --auth-file (as `skopeo login --authfile` writes it)."


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password; shown nowhere."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers and a bounded body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""


class Transport:
    """Requests to one registry. A context manager; used by one thread at a time."""

    def __init__(
        self,
        registry: str,
        *,
        plain_http: bool = False,
        credentials: Credentials | None = None,
        ca: Path | None = None,
    ) -> None:
        self._local = plain_http
        if plain_http and not is_loopback(registry):
            raise PlainHttp("registry is not on this machine", got=ascii(registry[:80]))
        self._base = httpx.URL(f"{'http' if plain_http else 'https'}://{registry}/v2/")
        self._credentials = credentials
        self._authorization = ""
        self._http = httpx.Client(
            timeout=SECONDS,
            verify=_trust(ca),
            trust_env=not plain_http,
            headers={"User-Agent": "catena"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def get(self, path: str, *, accept: str = "*/*", limit: int) -> Answer:
        """Read at most ``limit`` bytes. Raises ``FormatError`` beyond, ``RegistryUnreachable``, ``RegistryDenied``.

        What a registry says in an error is not read.
        """
        with self.stream(path, accept=accept) as response:
            body = bytearray()
            if response.status_code != httpx.codes.OK:
                return Answer(response.status_code, response.headers, b"")
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > limit:
                    raise FormatError("registry's answer is too large", expected=f"at most {limit}")
            return Answer(response.status_code, response.headers, bytes(body))

    @contextmanager
    def stream(self, path: str, *, accept: str = "*/*") -> Iterator[httpx.Response]:
        """An answer whose body is read by the caller; the same errors."""
        url = self._base.join(path)
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        with _network():
            response = self._authorized("GET", url, headers, b"")
            try:
                for _ in range(MAX_REDIRECTS):
                    if response.status_code not in _REDIRECTS:
                        break
                    target = url.join(response.headers.get("Location", ""))
                    response.close()
                    self._check_secure(target)
                    request = self._http.build_request("GET", target, headers=headers)
                    response = self._http.send(request, stream=True)
                yield response
            finally:
                response.close()

    def send(
        self, method: str, target: str, content: bytes = b"", *, media_type: str = ""
    ) -> Answer:
        """Write to the registry itself: ``target`` is a path or a location that it gave."""
        url = self._base.join(target)
        if (url.scheme, url.host, url.port) != (
            self._base.scheme,
            self._base.host,
            self._base.port,
        ):
            raise RegistryUnreachable("registry wants uploads to go elsewhere", got=url.host[:80])
        headers = {"Content-Type": media_type} if media_type else {}
        with _network():
            response = self._authorized(method, url, headers, content)
            try:
                body = response.read() if method != "HEAD" else b""
            finally:
                response.close()
        return Answer(response.status_code, response.headers, body[:MAX_TOKEN_ANSWER])

    def _authorized(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes
    ) -> httpx.Response:
        """One request, and once more after answering a challenge."""
        for attempt in (1, 2):
            sent = {**headers}
            if self._authorization:
                sent["Authorization"] = self._authorization
            request = self._http.build_request(method, url, headers=sent, content=content)
            response = self._http.send(request, stream=True)
            if response.status_code not in {401, 403}:
                return response
            challenge = response.headers.get("WWW-Authenticate", "")
            response.close()
            if attempt == 2 or response.status_code == 403 or not challenge:
                break
            self._authorization = self._answer(challenge)
        raise RegistryDenied(
            "registry denies access", got=f"{response.status_code} for {method} {url.path[:120]}"
        )

    def _answer(self, challenge: str) -> str:
        """The header that a challenge asks for (RFC 7235; Distribution's token specification)."""
        scheme, _, rest = challenge[:_MAX_CHALLENGE].partition(" ")
        if scheme.lower() == "basic" and self._credentials is not None:
            return _basic(self._credentials)
        if scheme.lower() != "bearer":
            raise RegistryDenied("registry wants credentials", got=ascii(scheme[:40]))
        parameters = dict(_PARAMETER.findall(rest))
        realm = httpx.URL(parameters.pop("realm", ""))
        self._check_secure(realm)
        query = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        headers = {"Authorization": _basic(self._credentials)} if self._credentials else {}
        response = self._http.get(realm, params=query, headers=headers)
        if response.status_code != 200 or len(response.content) > MAX_TOKEN_ANSWER:
            raise RegistryDenied(
                "token service gives no token", got=f"{response.status_code} from {realm.host[:80]}"
            )
        return f"Bearer {_token(response.content)}"

    def _check_secure(self, url: httpx.URL) -> None:
        local = self._local and url.scheme == "http" and is_loopback(url.host)
        if url.scheme != "https" and not local:
            raise PlainHttp("registry leads to plain HTTP", got=ascii(url.host[:80]))


def is_loopback(registry: str) -> bool:
    """Whether a registry's name can only be this machine."""
    host = registry.rpartition(":")[0] if registry.count(":") == 1 else registry
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _basic(credentials: Credentials) -> str:
    request = httpx.Request("GET", "https://unused.invalid")
    auth = httpx.BasicAuth(credentials.user, credentials.password)
    return next(auth.sync_auth_flow(request)).headers["Authorization"]


def _token(content: bytes) -> str:
    try:
        found = msgspec.json.decode(content, type=_Token)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryDenied("token service's answer cannot be read") from error
    token = found.token or found.access_token
    if not token or not token.isascii() or not token.isprintable():
        raise RegistryDenied("token service's answer holds no token")
    return token


def _trust(ca: Path | None) -> ssl.SSLContext:
    """The system's roots, or only the given ones."""
    try:
        return ssl.create_default_context(cafile=str(ca) if ca else None)
    except OSError as error:
        raise RegistryUnreachable("cannot read the CA file", got=str(ca)) from error


@contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RegistryUnreachable(f"registry does not answer: {type(error).__name__}") from error
