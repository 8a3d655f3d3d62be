"""The OpenID provider as the server sees it: its document and its keys, fetched from it alone.

OpenID Connect Discovery 1.0, sections 4.1 to 4.3. The address is the setting's, over TLS; what the document
says about itself has to be that address, and its keys lie where the document says, over TLS too. Keys are kept for an hour. A
key id that is not among them has them fetched anew, once a minute at most, so that a flood of invented ones
reaches nobody.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import msgspec

from catena.errors import FormatError, Unavailable
from catena.formats import ijson, jwk
from catena.formats.jwk import Jwk

WELL_KNOWN = "/.well-known/openid-configuration"
MAX_DOCUMENT = 256 * 1024
TIMEOUT = 5.0
KEPT = 3600.0
PAUSE = 60.0


class IssuerUnreachable(Unavailable):
    """The OpenID provider does not answer, or not as one."""

    code = "issuer-unreachable"
    remedy = "Check `oidc_issuer` and `oidc_ca`, and that the provider runs."


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed of an issuer's document."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str
    token_endpoint: str


class IssuerKeys:
    """An issuer's keys. Safe to share between threads."""

    def __init__(
        self,
        issuer: str,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._tls = tls
        self._clock = clock
        self._lock = threading.Lock()  # guards what follows, and that one fetch is under way
        self._keys: tuple[Jwk, ...] = ()
        self._fetched: float | None = None
        self._tried: float | None = None

    def __call__(self, kid: str | None) -> tuple[Jwk, ...]:
        """The keys, among them ``kid`` if the issuer has it. Raises ``IssuerUnreachable``."""
        with self._lock:
            now = self._clock()
            old = self._fetched is None or now - self._fetched >= KEPT
            lacking = kid is not None and all(one.kid != kid for one in self._keys)
            if old or (lacking and (self._tried is None or now - self._tried >= PAUSE)):
                self._tried = now
                self._keys = fetch_keys(self._issuer, self._tls)
                self._fetched = now
            return self._keys


def fetch_keys(issuer: str, tls: ssl.SSLContext | None) -> tuple[Jwk, ...]:
    """The issuer's keys as they are now. Raises ``IssuerUnreachable``."""
    with client(tls) as http:
        document = discover(http, issuer)
        content = get(http, document.jwks_uri)
    try:
        return jwk.parse(content).keys
    except FormatError as error:
        raise IssuerUnreachable(f"the issuer's keys cannot be read: {error.message}") from error


def client(tls: ssl.SSLContext | None) -> httpx.Client:
    """An HTTP client that follows nothing and knows no proxies."""
    return httpx.Client(
        verify=tls if tls is not None else ssl.create_default_context(),
        timeout=TIMEOUT,
        trust_env=False,
        follow_redirects=False,
    )


def discover(http: httpx.Client, issuer: str) -> Discovery:
    """The issuer's document, if it is about this issuer. Raises ``IssuerUnreachable``."""
    try:
        found = ijson.decode(
            get(http, issuer.rstrip("/") + WELL_KNOWN),
            Discovery,
            limit=MAX_DOCUMENT,
            what="OpenID provider's document",
        )
    except FormatError as error:
        raise IssuerUnreachable(f"the issuer's document cannot be read: {error.message}") from error
    if found.issuer != issuer:
        raise IssuerUnreachable(
            "the document is about another issuer", expected=issuer, got=ascii(found.issuer[:120])
        )
    return found


def get(http: httpx.Client, url: str) -> bytes:
    """A document over TLS, of bounded size. Raises ``IssuerUnreachable``."""
    if not is_https(url):
        raise IssuerUnreachable("not an address of TLS", got=ascii(url[:120]))
    try:
        with http.stream("GET", url, headers={"accept": "application/json"}) as response:
            if response.status_code != httpx.codes.OK:
                raise IssuerUnreachable("no answer that helps", got=f"{response.status_code}")
            return _bounded(response)
    except httpx.HTTPError as error:
        raise IssuerUnreachable(f"no answer from the issuer: {type(error).__name__}") from error


def is_https(url: str) -> bool:
    """Whether an address is of TLS and has a host, and no user and no fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return (
        parts.scheme == "https"
        and bool(parts.hostname)
        and not parts.fragment
        and not parts.username
    )


def _bounded(response: httpx.Response) -> bytes:
    content, started = b"", time.monotonic()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > MAX_DOCUMENT or time.monotonic() - started > 2 * TIMEOUT:
            raise IssuerUnreachable("the issuer's answer is too long")
    return content
