"""A witness's HTTP interface (C2SP tlog-witness, "add-checkpoint").

``POST /add-checkpoint`` is all there is. An answer is a signature line, or the words of a refusal
as plain text; a witness that is at another size answers with that size alone.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from catena.audit.witness import (
    ForkShown,
    GrowthUnproven,
    OldSizeBeyondCheckpoint,
    OldSizeMoved,
    UnknownLog,
    UntrustedCheckpoint,
    Witness,
)
from catena.errors import CatenaError, FormatError, Unavailable
from catena.formats.addcheckpoint import MAX_REQUEST, SIZE_TYPE, size_answer
from catena.server.access import AccessLog, FaultLine, Write, timestamp, to_stderr, write_line
from catena.server.answer import TEXT
from catena.server.body import BodyReader
from catena.server.faults import BodyTooLarge, BodyTooSlow

PATH = "/add-checkpoint"
_HEADERS = {"cache-control": "no-store"}

STATUS: Final[dict[type[CatenaError], HTTPStatus]] = {
    FormatError: HTTPStatus.BAD_REQUEST,
    OldSizeBeyondCheckpoint: HTTPStatus.BAD_REQUEST,
    UntrustedCheckpoint: HTTPStatus.FORBIDDEN,
    UnknownLog: HTTPStatus.NOT_FOUND,
    OldSizeMoved: HTTPStatus.CONFLICT,
    ForkShown: HTTPStatus.CONFLICT,
    GrowthUnproven: HTTPStatus.UNPROCESSABLE_ENTITY,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    BodyTooSlow: HTTPStatus.REQUEST_TIMEOUT,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    CatenaError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""An error has the status of the nearest class above it in this table."""

_NOTED = (ForkShown, GrowthUnproven)
"""Refusals that its own log key brought on a log: each is written down."""


class WitnessDoor:
    """The endpoint over one witness; ``write`` takes log lines."""

    def __init__(
        self,
        witness: Witness,
        *,
        workers: int,
        body_timeout: float,
        write: Write = to_stderr,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._witness = witness
        self._workers = CapacityLimiter(workers)
        self._bodies = BodyReader(MAX_REQUEST, 16 * MAX_REQUEST, body_timeout)
        self._write = write
        self._random = random

    def app(self) -> ASGIApp:
        """The application, with its access log."""
        routes = [Route(PATH, self.add_checkpoint, methods=["POST"])]
        application = Starlette(routes=routes)
        application.router.redirect_slashes = False
        return AccessLog(application, self._write, self._random)

    async def add_checkpoint(self, request: Request) -> Response:
        """One request, one answer."""
        try:
            async with self._bodies.reading(request) as body:
                line = await anyio.to_thread.run_sync(
                    self._witness.add_checkpoint, body, limiter=self._workers
                )
        except ClientDisconnect:
            return Response(status_code=400)
        except CatenaError as error:
            return self._refuse(request, error)
        except Exception as error:  # noqa: BLE001 - the last door: nothing leaks, all is logged
            places = traceback.extract_tb(error.__traceback__)[-4:]
            shown = " > ".join(f"{place.name}:{place.lineno}" for place in places)
            self._note("internal", f"{type(error).__name__}; {shown}")
            return Response("the witness failed\n", 500, _HEADERS, TEXT)
        return Response(f"{line.encode()}\n", 200, _HEADERS, TEXT)

    def _refuse(self, request: Request, error: CatenaError) -> Response:
        status = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
        request.scope["catena.code"] = error.code
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(error, _NOTED):
            self._note(error.code, str(error))
        if isinstance(error, OldSizeMoved | ForkShown):
            # In the headers, because a media type of text would get a charset that the type has not.
            headers = {**_HEADERS, "content-type": SIZE_TYPE}
            return Response(size_answer(error.size), status, headers)
        ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        words = "the witness cannot answer now" if ours else str(error)
        return Response(f"{error.code}: {words}\n", status, _HEADERS, TEXT)

    def _note(self, code: str, detail: str) -> None:
        write_line(self._write, FaultLine(at=timestamp(), code=code, detail=detail[:2000]))
