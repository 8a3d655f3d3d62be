"""A person's side of logging in: the authorization code grant with PKCE, back to this machine.

RFC 8252 (native apps, loopback redirect, section 7.3), RFC 7636 (PKCE, S256), RFC 9207 (the answer names its issuer),
OpenID Connect Core 1.0, section 3.1.2. The browser shows the provider's page; the provider sends it back to a port
of 127.0.0.1 that is open for this one answer. What comes there is believed only with the ``state`` that was sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import msgspec

from catena.errors import FormatError, Refusal, Unavailable
from catena.formats import ijson
from catena.server.issuer import MAX_DOCUMENT, Discovery, IssuerUnreachable, discover, is_https

PATH = "/callback"
PATIENCE = 300.0
"""Seconds that a person has."""
_SCOPE = "openid email profile"
_THANKS = b"<!doctype html><title>catena</title><p>You may close this page."


class LoginAbandoned(Unavailable):
    """Nobody logged in."""

    code = "login-abandoned"
    remedy = "Run `catena login` again and finish in the browser within five minutes."


class LoginDeclined(Refusal):
    """The provider did not let the person in, or answered somebody else."""

    code = "login-declined"
    remedy = (
        "See what the provider's page says; its admin knows whether catena is registered there."
    )


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the token endpoint gives (RFC 6749, section 5.1); only the ID token is used."""

    id_token: str


@dataclass(slots=True)
class Loopback:
    """A port of this machine that takes one answer of the provider."""

    state: str
    issuer: str
    code: str | None = None
    refused: str | None = None
    _server: http.server.HTTPServer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._server = http.server.HTTPServer(("127.0.0.1", 0), _handler(self))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends the browser."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{PATH}"

    def wait(self, patience: float) -> str:
        """The authorization code. Raises ``LoginAbandoned`` or ``LoginDeclined``."""
        end = time.monotonic() + patience
        while self.code is None and self.refused is None:
            left = end - time.monotonic()
            if left <= 0:
                raise LoginAbandoned("nobody logged in in time")
            self._server.timeout = left
            self._server.handle_request()
        if self.code is None:
            raise LoginDeclined("the provider declined", got=ascii(self.refused or "")[:120])
        return self.code

    def take(self, query: str) -> bool:
        """Note one answer; False for one that is not to our question."""
        answer = {name: values[0] for name, values in parse_qs(query).items() if len(values) == 1}
        if not hmac.compare_digest(answer.get("state", "").encode(), self.state.encode()):
            return False
        if answer.get("iss", self.issuer) != self.issuer:  # RFC 9207, section 2.4
            self.refused = "an answer of another issuer"
        elif "code" in answer:
            self.code = answer["code"]
        else:
            self.refused = answer.get("error", "no code")
        return True


def _handler(door: Loopback) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            known = parts.path == PATH and door.take(parts.query)
            self.send_response(200 if known else 404)
            self.send_header("content-type", "text/html")
            self.end_headers()
            if known:
                self.wfile.write(_THANKS)

        def log_message(self, *_: object) -> None:
            """Say nothing: the line would show the code."""

    return Handler


def id_token(
    http: httpx.Client,
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    random: Callable[[int], bytes],
    show: Callable[[str], None],
    patience: float = PATIENCE,
) -> str:
    """Have a person log in; ``show`` gets the address that they are to open.

    Raises ``IssuerUnreachable``, ``LoginAbandoned`` or ``LoginDeclined``.
    """
    provider = discover(http, issuer)
    for endpoint in (provider.authorization_endpoint, provider.token_endpoint):
        if not is_https(endpoint):
            raise IssuerUnreachable("not an address of TLS", got=ascii(endpoint[:120]))
    verifier, state = _text(random(32)), _text(random(32))
    with Loopback(state, issuer) as door:
        question = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": door.redirect_uri,
            "scope": _SCOPE,
            "state": state,
            "nonce": nonce,
            "code_challenge": _text(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in provider.authorization_endpoint else "?"
        show(provider.authorization_endpoint + joint + urlencode(question))
        code = door.wait(patience)
        return _redeem(
            http,
            provider,
            client_id=client_id,
            redirect_uri=door.redirect_uri,
            code=code,
            verifier=verifier,
        )


def _redeem(
    http: httpx.Client,
    provider: Discovery,
    *,
    client_id: str,
    redirect_uri: str,
    code: str,
    verifier: str,
) -> str:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "client_id": client_id,
        "code_verifier": verifier,
    }
    try:
        response = http.post(provider.token_endpoint, data=form)
    except httpx.HTTPError as error:
        raise IssuerUnreachable(f"no answer from the issuer: {type(error).__name__}") from error
    if response.status_code != httpx.codes.OK:
        raise LoginDeclined("the provider gave no token", got=f"{response.status_code}")
    try:
        answer = ijson.decode(
            response.content, TokenAnswer, limit=MAX_DOCUMENT, what="token endpoint's answer"
        )
    except FormatError as error:
        # What was sent may hold a token: only what kind of fault it is gets out.
        raise LoginDeclined("the provider's answer has no ID token") from error
    return answer.id_token


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
