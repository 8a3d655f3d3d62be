"""From errors to answers: every error has one status, in one table, and one body (RFC 9457).

A failure on our side (5xx) tells the caller its code and nothing else; the operator finds the
rest in the server's own log.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from catena.appraise.clause import PolicyError
from catena.appraise.reference import UnusableReference
from catena.errors import (
    CatenaError,
    FormatError,
    LogInconsistent,
    NotFound,
    Refusal,
    Unavailable,
    UsageError,
)
from catena.formats.nodeapi import ErrorBody
from catena.service.attestation import LogsMissing
from catena.service.idempotency import KeyReused
from catena.service.policies import PolicyMoved, PolicyRollback
from catena.store.errors import Conflict


class BodyTooLarge(UsageError):
    """A request body above the configured limit."""

    code = "body-too-large"
    remedy = "Send less, or raise `max_body` in server.toml."


class BodyTooSlow(UsageError):
    """A request body that did not arrive in time."""

    code = "body-too-slow"
    remedy = "Send the request again over a faster link."


class ComeAgain(Unavailable):
    """A request that is refused for the moment; ``retry_after`` is for how many seconds."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(ComeAgain):
    """Too many requests are being read or wait at once."""

    code = "busy"
    remedy = "Try again after a pause."


class RateLimited(ComeAgain):
    """An address that asks, or a node that attests, more often than it may."""

    code = "rate-limited"
    remedy = "Wait as long as `Retry-After` says; `rate_address` and `rate_node` set the limits."

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many requests", retry_after=retry_after)


class NotReady(Unavailable):
    """A server that should not be sent requests; the message names parts and codes, and no more."""

    code = "not-ready"
    remedy = "Send requests to another server; this one's log has the reason."


class Unauthenticated(Refusal):
    """An admin call without a token that the server knows."""

    code = "unauthenticated"
    remedy = "Give the admin token's file (--token-file or CATENA_TOKEN_FILE)."


class ExpiredToken(Unauthenticated):
    """A token that the server knows, and that has ended."""

    code = "token-expired"
    remedy = "Log in again (`catena login`), or ask an admin for a new token."


class Forbidden(Refusal):
    """An admin call that the token's role or scope does not allow."""

    code = "forbidden"
    remedy = "Use a token whose role has this right; the manual's table of roles says which."


class BadQuery(UsageError):
    """A query string with a parameter that the operation does not have, or a wrong value."""

    code = "bad-query"
    remedy = "`/v1/docs` of the server lists the parameters of each request."


class NoSuchRoute(NotFound):
    """A path that this API does not have."""

    code = "no-such-route"
    remedy = "Check the address, and that client and server have the same version."


class WrongMethod(UsageError):
    """A path that exists, asked with another method than it has."""

    code = "wrong-method"
    remedy = "Check that client and server have the same version."


STATUS: Final[dict[type[CatenaError], HTTPStatus]] = {
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    BodyTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    WrongMethod: HTTPStatus.METHOD_NOT_ALLOWED,
    LogsMissing: HTTPStatus.CONFLICT,
    KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    Conflict: HTTPStatus.CONFLICT,
    UnusableReference: HTTPStatus.BAD_REQUEST,
    PolicyMoved: HTTPStatus.CONFLICT,
    PolicyRollback: HTTPStatus.CONFLICT,
    PolicyError: HTTPStatus.BAD_REQUEST,
    FormatError: HTTPStatus.BAD_REQUEST,
    UsageError: HTTPStatus.BAD_REQUEST,
    NotFound: HTTPStatus.NOT_FOUND,
    Refusal: HTTPStatus.FORBIDDEN,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    LogInconsistent: HTTPStatus.INTERNAL_SERVER_ERROR,
    CatenaError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""An error has the status of the nearest class above it in this table."""


def status_of(error: CatenaError) -> HTTPStatus:
    """The HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem_of(error: CatenaError, request_id: str = "") -> ErrorBody:
    """The problem details of an error, few if the fault is ours."""
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, NotReady):
        return internal_problem(status, error.code, request_id)
    return msgspec.structs.replace(
        ErrorBody.of(status, error.code, _message(error)),
        request_id=request_id,
        remedy=error.remedy,
        expected=error.expected,
        got=error.got,
        offset=error.offset if isinstance(error, FormatError) else None,
        missing_logs=error.missing if isinstance(error, LogsMissing) else (),
    )


def _message(error: CatenaError) -> str:
    """The message of an error; that of a policy says where in its text."""
    if isinstance(error, PolicyError) and error.place:
        return f"{error.place}: {error.message}"
    return error.message


def internal_problem(
    status: int = HTTPStatus.INTERNAL_SERVER_ERROR, code: str = "internal", request_id: str = ""
) -> ErrorBody:
    """What a caller learns about a failure on our side."""
    return msgspec.structs.replace(
        ErrorBody.of(status, code, "the trust service could not decide; nothing was changed"),
        request_id=request_id,
        remedy="Try again later; the reason is in the server's own log.",
    )
