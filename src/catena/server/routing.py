"""From tables of operations to routes: let in, read query and body, run the verb, answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from catena.server import idempotencykey
from catena.server.admission import Admission
from catena.server.answer import Desk, Endpoint, encoded, reply
from catena.server.faults import BadQuery
from catena.server.gathering import Gathering
from catena.server.operation import Asked, Operation, Parts
from catena.server.tokens import StoredToken
from catena.service.idempotency import Keyed, digest_of
from catena.service.pages import Page

LARGE_BODY = 256 * 1024
_MAX_COMPLAINT = 200


def routes(
    operations: Iterable[Operation], parts: Parts, desk: Desk, admission: Admission
) -> list[Route]:
    """A route for each operation."""
    return [_route(one, parts, desk, admission) for one in operations]


def _route(operation: Operation, parts: Parts, desk: Desk, admission: Admission) -> Route:
    answer = (
        _Endpoint(operation, parts, desk, admission).answer
        if operation.together is None
        else _together(operation, parts, desk)
    )
    return Route(operation.path, desk.guarded(answer), methods=[operation.method])


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """What answers the requests for one operation."""

    operation: Operation
    parts: Parts
    desk: Desk
    admission: Admission

    async def answer(self, request: Request) -> Response:
        """The token is checked before anything else is read."""
        token = await self._token(request)
        query = read_query(request, self.operation.query)
        key = idempotencykey.key_of(request) if self.operation.writes else None
        if self.operation.takes is None:
            return await self._decide(request, token, query, key, b"")
        async with self.desk.bodies.reading(request, self.operation.limit) as body:
            return await self._decide(request, token, query, key, body)

    async def _token(self, request: Request) -> StoredToken | None:
        right = self.operation.right
        if right is None:
            return None
        header = request.headers.get("authorization")
        return await self.desk.decide(lambda: self.admission.admit(header, right))

    async def _decide(
        self,
        request: Request,
        token: StoredToken | None,
        query: msgspec.Struct | None,
        key: str | None,
        body: bytes,
    ) -> Response:
        asked = Asked(
            content=body,
            name=request.path_params.get("name", ""),
            actor="" if token is None else token.label,
            query=query,
            keyed=None if key is None or token is None else _keyed(request, token, key, body),
        )
        return await self.desk.decide(lambda: self._run(request, asked))

    def _run(self, request: Request, asked: Asked) -> Response:
        if asked.keyed is None:
            return _answer(request, self.operation.act(self.parts, asked))
        once = self.parts.service.idempotency.once(
            asked.keyed, lambda: msgspec.json.encode(self.operation.act(self.parts, asked))
        )
        headers = {idempotencykey.REPEATED: "true"} if once.repeated else {}
        return encoded(once.answer, headers)


def _together(operation: Operation, parts: Parts, desk: Desk) -> Endpoint:
    """What answers requests that are decided together with others.

    A large body takes long, so it is decided alone, and keeps nobody else waiting.
    """
    gathering = Gathering(
        partial(operation.act_together, parts), desk.workers, patience=desk.patience
    )

    async def answer(request: Request) -> Response:
        read_query(request, operation.query)
        async with desk.bodies.reading(request, operation.limit) as body:
            if len(body) > LARGE_BODY:
                return await desk.decide(lambda: reply(operation.act(parts, Asked(body))))
            return encoded(await gathering(body))

    return answer


class ShortWay:
    """In front of the whole application: the routes that a fleet takes all the time, found at once.

    What they answer is the same as by the long way, which looks through all routes.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[Route], often: Iterable[Operation]) -> None:
        paths = {operation.path for operation in often}
        self._app = app
        self._often = {route.path: route.endpoint for route in routes if route.path in paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        hurried = scope["type"] == "http" and scope["method"] == "POST"
        endpoint = self._often.get(scope["path"]) if hurried else None
        if endpoint is None:
            await self._app(scope, receive, send)
        else:
            scope["endpoint"] = endpoint  # as the long way does, for whoever counts
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)


def _keyed(request: Request, token: StoredToken, key: str, body: bytes) -> Keyed:
    query = request.scope["query_string"].decode("latin-1")
    digest = digest_of(request.method, request.scope["path"], query, body)
    return Keyed(token.hash, key, digest)


def read_query(request: Request, kind: type[msgspec.Struct] | None) -> msgspec.Struct | None:
    """The query string, read strictly. Raises ``BadQuery``."""
    if kind is None and not request.scope["query_string"]:
        return None
    given = request.query_params.multi_items()
    values = dict(given)
    if len(values) != len(given):
        raise BadQuery("a parameter is given twice")
    if any(value.lower() == "null" for value in values.values()):
        raise BadQuery("a parameter is null: leave it out")  # it would count as left out
    if kind is None:
        if given:
            raise BadQuery("this request has no parameters", got=ascii(given[0][0][:40]))
        return None
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadQuery(str(error)[:_MAX_COMPLAINT]) from error


def _answer(request: Request, value: object) -> Response:
    """A value as JSON; a page of a list with the link to the next (RFC 8288, section 3)."""
    if not isinstance(value, Page):
        return reply(value)
    response = reply(value.items)
    if value.cursor is not None:
        following = urlencode({**request.query_params, "cursor": value.cursor})
        response.headers["link"] = f'<{request.scope["path"]}?{following}>; rel="next"'
    return response
