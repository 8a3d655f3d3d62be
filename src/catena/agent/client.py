"""The node API from the node's side: HTTPS that trusts the cluster CA and nothing else.

Only the standard library's client is used: a node should carry little, and start fast. There
are no proxies, no redirects and no system roots.

::

    answer                       becomes
    2xx                          the decoded body
    4xx code unknown-node        UnknownNode
    4xx code retired-node        RetiredNode
    4xx code logs-missing        LogsMissing, with the digests
    429, 5xx                     ServerFailing   (worth another try later)
    any other                    RequestRefused
    no connection                ServerUnreachable
    TLS failure                  UntrustedServer, or WrongTime if only the time does not fit
"""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from catena.errors import ExitCode, FormatError, NotFound, Refusal, Unavailable
from catena.evidence import Evidence
from catena.formats.nodeapi import (
    ActivateRequest,
    AttestResult,
    DemandResponse,
    EnrollChallenge,
    EnrollRequest,
    EnrollResult,
    ErrorBody,
    NonceRequest,
    NonceResponse,
    decode,
)

MAX_RESPONSE = 16 * 1024 * 1024
TIMEOUT_SECONDS = 30.0

_HTTPS_PORT = 443
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500
_CLIENT_ERRORS = 400
_VERIFY_NOT_YET_VALID = 9
_VERIFY_EXPIRED = 10
_SHOWN = 200

B = TypeVar("B", bound=msgspec.Struct)


class ServerUnreachable(Unavailable):
    """No connection to the trust service."""

    code = "server-unreachable"
    remedy = "Check the network and that the trust service runs; the agent keeps trying."


class UntrustedServer(Refusal):
    """Whoever answers has no certificate of the cluster CA for that name."""

    code = "untrusted-server"
    remedy = "Check `server` and `ca`; if both are right, somebody is in between."


class WrongTime(Unavailable):
    """A certificate is not valid at this machine's time."""

    code = "wrong-time"
    remedy = "Set the clocks of this machine and of the trust service."


class ServerFailing(Unavailable):
    """The trust service answered that it cannot answer now, or not before ``retry_after`` seconds."""

    code = "server-failing"
    remedy = "See the trust service's log; the agent keeps trying."

    def __init__(self, message: str, *, got: str, retry_after: int = 0) -> None:
        super().__init__(message, got=got)
        self.retry_after = retry_after


class RequestRefused(Refusal):
    """The trust service refused a request; ``server_code`` is its reason's code."""

    code = "request-refused"
    remedy = "`catena node show` on the trust service says more about this node."

    def __init__(self, status: int, body: ErrorBody) -> None:
        super().__init__(
            f"the trust service refused: {_printable(body.detail)}",
            got=f"{status} {_printable(body.code)}",
        )
        self.status = status
        self.server_code = body.code


class UnknownNode(NotFound):
    """The trust service does not know this TPM; the node has to enrol."""

    code = "unknown-node"
    exit_code = ExitCode.UNKNOWN_NODE
    remedy = "Run `catena agent join`."


class RetiredNode(Refusal):
    """The trust service took this machine off its rolls."""

    code = "retired-node"
    remedy = "Nothing to do here: a person approves the machine as a new one, or takes it away."


class LogsMissing(Unavailable):
    """The trust service lacks logs that the manifest names; ``digests`` are their SHA-256."""

    code = "logs-missing"
    remedy = "Send the evidence again with the logs' content."

    def __init__(self, digests: tuple[str, ...]) -> None:
        super().__init__("the trust service lacks logs", got=f"{len(digests)} missing")
        self.digests = digests


class TrustClient:
    """One connection to the trust service, reopened when it was lost."""

    def __init__(self, server: str, ca: Path, *, timeout: float = TIMEOUT_SECONDS) -> None:
        parts = urlsplit(server)
        self._connection = http.client.HTTPSConnection(
            parts.hostname or "",
            parts.port or _HTTPS_PORT,
            timeout=timeout,
            context=_tls(ca),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def enroll(self, request: EnrollRequest) -> EnrollChallenge:
        """``POST /v1/enroll``."""
        return self._post("/v1/enroll", request, EnrollChallenge)

    def activate(self, request: ActivateRequest) -> EnrollResult:
        """``POST /v1/enroll/activate``."""
        return self._post("/v1/enroll/activate", request, EnrollResult)

    def nonce(self, node_id: str) -> bytes:
        """``POST /v1/nonce``."""
        return self._post("/v1/nonce", NonceRequest(node_id=node_id), NonceResponse).nonce

    def is_demanded(self, node_id: str) -> bool:
        """``POST /v1/demand``."""
        return self._post("/v1/demand", NonceRequest(node_id=node_id), DemandResponse).attest

    def attest(self, evidence: Evidence) -> AttestResult:
        """``POST /v1/attest``."""
        return self._post("/v1/attest", evidence, AttestResult)

    def _post(self, path: str, body: msgspec.Struct, kind: type[B]) -> B:
        status, content, retry_after = self._exchange(path, msgspec.json.encode(body))
        if status >= _CLIENT_ERRORS:
            raise _failure(status, content, retry_after)
        return decode(content, kind)

    def _exchange(self, path: str, body: bytes) -> tuple[int, bytes, int]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        try:
            self._connection.request("POST", path, body, headers)
            response = self._connection.getresponse()
            content = response.read(MAX_RESPONSE + 1)
        except ssl.SSLCertVerificationError as error:
            self._connection.close()
            raise _distrust(error) from error
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ServerUnreachable(
                "no answer from the trust service", got=_printable(str(error) or repr(error))
            ) from error
        if len(content) > MAX_RESPONSE:
            self._connection.close()
            raise FormatError("the answer is too long", expected=f"at most {MAX_RESPONSE} bytes")
        return response.status, content, _seconds(response.getheader("Retry-After"))


def _tls(ca: Path) -> ssl.SSLContext:
    """TLS 1.3 to a server that the cluster CA, and it alone, vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(f"cannot read the cluster CA {ca}", got=str(error)) from error
    return context


def _distrust(error: ssl.SSLCertVerificationError) -> UntrustedServer | WrongTime:
    reason = _printable(error.verify_message)
    if error.verify_code in {_VERIFY_NOT_YET_VALID, _VERIFY_EXPIRED}:
        return WrongTime("the server's certificate is not valid now", got=reason)
    return UntrustedServer("the server's certificate is not from the cluster CA", got=reason)


def _seconds(retry_after: str | None) -> int:
    """RFC 9110, section 10.2.3, as a number of seconds; the server sends no dates."""
    text = retry_after or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else 0


def _failure(status: int, content: bytes, retry_after: int) -> Refusal | Unavailable | UnknownNode:
    try:
        body = decode(content, ErrorBody)
    except FormatError:
        body = ErrorBody.of(status, "unspecified", "no reason given")
    if status >= _SERVER_ERRORS or status == _TOO_MANY_REQUESTS:
        got = f"{status} {_printable(body.code)}"
        message = "the trust service cannot answer now"
        return ServerFailing(message, got=got, retry_after=retry_after)
    if body.code == UnknownNode.code:
        return UnknownNode("the trust service does not know this node")
    if body.code == RetiredNode.code:
        return RetiredNode("the trust service has retired this node")
    if body.code == LogsMissing.code:
        return LogsMissing(body.missing_logs)
    return RequestRefused(status, body)


def _printable(text: str) -> str:
    """What came over the network, safe and short enough for a line of a log."""
    return "".join(char if char.isprintable() else "?" for char in text[:_SHOWN])
