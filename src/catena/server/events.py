"""``/v1/admin/events``: what is decided, as it is logged, for other systems (server-sent events).

Every entry of the log is an event, in order; its ``id`` is the log's (``log_id``) and its index. A client that returns with
``last-event-id`` goes on behind that entry, at any server with the same log; it misses none and sees none twice. Others
begin with what is logged next, or at ``from``.

A stream ends when the server ends, when its token no longer admits, and when the client does not take
what it is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Final, cast, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from catena.audit.entries import Entry
from catena.errors import CatenaError, UsageError
from catena.formats import eventstream
from catena.formats.openapi import Parameter
from catena.server.admission import Admission
from catena.server.answer import Desk
from catena.server.faults import BadQuery
from catena.server.feed import LOOK, Feed, TooManyListeners
from catena.server.logevent import LogEvent, log_id
from catena.server.operation import Operation
from catena.server.routing import read_query
from catena.service.roles import Right
from catena.service.views import View
from catena.store.errors import Conflict

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, and the token looked at again."""
STALL = 30.0
"""Seconds that a client may take for one batch."""
RETRY_MS = 2000
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
_LAST_ID = "last-event-id"
_EVENT_ID = re.compile(r"([0-9a-f]{16})-(0|[1-9][0-9]{0,17})")
KINDS: Final = frozenset(kind.kind for kind in get_args(Entry))


class BadEventId(UsageError):
    """A ``last-event-id`` that no event of this server has."""

    code = "bad-event-id"
    remedy = "Give back the `id` of the last event as it was, or nothing."


class EventsOfAnotherLog(Conflict):
    """A client that followed another log, such as the one before a rotation."""

    code = "events-of-another-log"
    remedy = "Read what you miss of the other log in its archive, then begin here with `from=0`."


class EventsAhead(Conflict):
    """A client that has seen more than the log holds."""

    code = "events-ahead"
    remedy = "The log is not the one that was followed before, or older: find out why first."


class EventsQuery(View, frozen=True, kw_only=True):
    """Which events: those of ``kinds`` (commas between them; all unless given), ``from`` an index on."""

    kinds: Annotated[str, msgspec.Meta(pattern=r"^[a-z-]+(,[a-z-]+)*\Z", max_length=512)] | None = (
        None
    )
    from_: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = msgspec.field(
        default=None, name="from"
    )


OPERATIONS: Final = (
    Operation(
        "GET",
        "/v1/admin/events",
        "What is decided from now on, as it is logged: server-sent events",
        right=Right.LOG_READ,
        query=EventsQuery,
        parameters=(
            Parameter(
                name=_LAST_ID,
                in_="header",
                description="The `id` of the last event that was seen: the stream goes on behind it.",
                schema={"type": "string", "pattern": f"^{_EVENT_ID.pattern}$"},
            ),
        ),
        media=eventstream.MEDIA_TYPE,
        refuses=(BadQuery, BadEventId, EventsOfAnotherLog, EventsAhead, TooManyListeners),
    ),
)


def routes(feed: Feed, desk: Desk, admission: Admission) -> list[Route]:
    """The route of the table."""

    async def answer(request: Request) -> Response:
        header = request.headers.get("authorization")

        def admit() -> object:
            return admission.admit(header, Right.LOG_READ)

        await desk.decide(admit)
        query = cast("EventsQuery", read_query(request, EventsQuery))
        kinds, last = _kinds(query), _last_seen(request, feed.origin)
        start = await desk.decide(lambda: _start(feed, query, last))
        place = contextlib.ExitStack()
        woken = place.enter_context(feed.listening())
        return _Stream(request.scope, _Listener(feed, desk, admit, woken, kinds, start), place)

    return [Route(one.path, desk.guarded(answer), methods=[one.method]) for one in OPERATIONS]


def _kinds(query: EventsQuery) -> frozenset[str]:
    if query.kinds is None:
        return KINDS
    kinds = frozenset(query.kinds.split(","))
    if unknown := kinds - KINDS:
        raise BadQuery(
            "no such kind of entry", expected=", ".join(sorted(KINDS)), got=min(unknown)[:40]
        )
    return kinds


def _last_seen(request: Request, origin: str) -> int | None:
    """The index of the last event seen. Raises ``BadEventId`` or ``EventsOfAnotherLog``."""
    given = request.headers.getlist(_LAST_ID)
    if not given:
        return None
    found = _EVENT_ID.fullmatch(given[0])
    if len(given) > 1 or found is None:
        raise BadEventId("not an event's id", got=ascii(given[0][:40]))
    if found[1] != log_id(origin):
        raise EventsOfAnotherLog("this is another log than was followed", expected=log_id(origin))
    return int(found[2])


def _start(feed: Feed, query: EventsQuery, last: int | None) -> int:
    """The index of the first event. Raises ``EventsAhead``."""
    size = feed.size()
    start = last + 1 if last is not None else query.from_
    if start is not None and start > size:
        raise EventsAhead(
            "the log has not come this far", expected=f"at most {size}", got=str(start)
        )
    return size if start is None else start


@dataclass(slots=True)
class _Listener:
    """One stream's place in the log."""

    feed: Feed
    desk: Desk
    admit: Callable[[], object]
    woken: asyncio.Event
    kinds: frozenset[str]
    next: int

    async def chunks(self) -> AsyncIterator[bytes]:
        """What is sent, until everybody has to leave. Raises what ends the stream before."""
        now = asyncio.get_running_loop().time
        yield eventstream.retry(RETRY_MS)
        looked = now()
        while not self.feed.stopped:
            self.woken.clear()
            events = await self.desk.decide(lambda: self.feed.read(self.next))
            shown = b"".join(_encoded(one) for one in events if one.kind in self.kinds)
            if now() - looked >= HEARTBEAT:
                await self.desk.decide(self.admit)
                looked, shown = now(), shown or eventstream.HEARTBEAT
            if shown:
                yield shown
            if events:
                self.next = events[-1].index + 1
            else:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.woken.wait(), LOOK)


def _encoded(event: LogEvent) -> bytes:
    name = f"{log_id(event.origin)}-{event.index}"
    return eventstream.event(name, event.kind, msgspec.json.encode(event))


class _Stream(StreamingResponse):
    """An answer that goes on; it gives its listener's place back whatever ends it."""

    def __init__(self, scope: Scope, listener: _Listener, place: contextlib.ExitStack) -> None:
        super().__init__(listener.chunks(), 200, _HEADERS, eventstream.MEDIA_TYPE)
        self._scope = scope
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client leaves or the listener ends."""
        with self._place:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """As it is, but bounded in time: who does not take what is sent holds no place."""

        async def bounded(message: Message) -> None:
            async with asyncio.timeout(STALL):
                await send(message)

        try:
            await super().stream_response(bounded)
        except CatenaError as error:  # a clean end: who returns is told why
            self._scope["catena.code"] = error.code
            await bounded({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            self._scope["catena.code"] = "stalled-listener"
