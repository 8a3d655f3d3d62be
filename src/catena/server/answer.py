"""One request, one answer: read the body, decide in a worker thread, encode, map errors.

Decisions wait for the disk (audit log, database), so they run in a few worker threads and the
event loop keeps reading other requests meanwhile; ``benchmarks/attestation.py`` has the cost.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.to_thread
import msgspec
from anyio import CapacityLimiter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from catena.errors import CatenaError
from catena.formats.nodeapi import PROBLEM_JSON, ErrorBody
from catena.server import faults
from catena.server.access import FaultLine, Write, timestamp, write_line
from catena.server.body import BodyReader
from catena.server.faults import Busy, ComeAgain, NotReady
from catena.server.requestid import request_id

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

_HEADERS = {"cache-control": "no-store"}
"""Answers hold certificates and sealed secrets: nothing on the way may keep them."""

Endpoint = Callable[[Request], Awaitable[Response]]
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Desk:
    """What every endpoint needs: bodies, workers, and where faults are written."""

    bodies: BodyReader
    workers: CapacityLimiter
    write: Write
    patience: float = math.inf
    """Seconds that a request waits for a worker."""
    _threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(math.inf))
    """As many as ``workers`` has let through."""

    async def decide(self, work: Callable[[], R]) -> R:
        """Run ``work`` in a worker thread. Raises ``Busy`` if none becomes free in time.

        Only the wait is bounded: work that has begun is never given up, for it may take effect.
        """
        place = object()
        try:
            self.workers.acquire_on_behalf_of_nowait(place)
        except anyio.WouldBlock:
            await self._wait(place)
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._threads)
        finally:
            self.workers.release_on_behalf_of(place)

    async def _wait(self, place: object) -> None:
        try:
            with anyio.fail_after(self.patience):
                await self.workers.acquire_on_behalf_of(place)
        except TimeoutError as error:
            raise Busy("no worker became free in time") from error

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint with every error turned into its answer."""

        async def answered(request: Request) -> Response:
            try:
                return await endpoint(request)
            except ClientDisconnect:
                return Response(status_code=400)
            except CatenaError as error:
                return self.refuse(request, error)
            except Exception as error:  # noqa: BLE001 - the last door: nothing leaks, all is logged
                return self._fail(request, error)

        return answered

    def refuse(self, request: Request, error: CatenaError) -> Response:
        """The answer to an error, which is written down if the fault is ours."""
        status = faults.status_of(error)
        request.scope["catena.code"] = error.code
        if status >= 500 and not isinstance(error, NotReady):
            self._note(request, error.code, f"{error}; {_places(error)}")
        answer = _problem(faults.problem_of(error, request_id(request.scope)))
        if isinstance(error, ComeAgain):
            answer.headers["retry-after"] = str(error.retry_after)
        return answer

    def _fail(self, request: Request, error: Exception) -> Response:
        # The text of a foreign exception may quote input or secrets: only its kind and the
        # places it passed are written.
        request.scope["catena.code"] = "internal"
        self._note(request, "internal", f"{type(error).__name__}; {_places(error)}")
        return _problem(faults.internal_problem(request_id=request_id(request.scope)))

    def _note(self, request: Request, code: str, detail: str) -> None:
        called = request_id(request.scope)
        line = FaultLine(at=timestamp(), code=code, detail=detail[:2000], request=called)
        write_line(self.write, line)


def reply(value: object, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, _HEADERS, JSON)


def encoded(content: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """What is JSON already, status 200."""
    return Response(content, 200, {**_HEADERS, **headers} if headers else _HEADERS, JSON)


def _problem(problem: ErrorBody) -> Response:
    return Response(msgspec.json.encode(problem), problem.status, _HEADERS, PROBLEM_JSON)


def _places(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    cause = f" from {type(error.__cause__).__name__}" if error.__cause__ else ""
    return " > ".join(f"{frame.name}:{frame.lineno}" for frame in frames) + cause
