"""From tables of operations to routes: let in, read query and body, run the verb, answer."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from catena.server.admission import Admission
from catena.server.answer import Desk, encoded, reply
from catena.server.faults import BadQuery
from catena.server.gathering import Gathering
from catena.server.operation import Asked, Operation, Parts
from catena.service.pages import Page

LARGE_BODY = 256 * 1024
_MAX_COMPLAINT = 200


def routes(
    operations: Iterable[Operation], parts: Parts, desk: Desk, admission: Admission
) -> list[Route]:
    """A route for each operation. The token is checked before anything else is read."""
    return [
        _route(one, parts, desk, admission)
        if one.together is None
        else _route_together(one, parts, desk)
        for one in operations
    ]


def _route(operation: Operation, parts: Parts, desk: Desk, admission: Admission) -> Route:
    async def endpoint(request: Request) -> Response:
        actor = await _actor(operation, request, desk, admission)
        query = read_query(request, operation.query)
        name = request.path_params.get("name", "")
        if operation.takes is None:
            return await desk.decide(lambda: decided(request, Asked(b"", name, actor, query)))
        async with desk.bodies.reading(request, operation.limit) as body:
            return await desk.decide(lambda: decided(request, Asked(body, name, actor, query)))

    def decided(request: Request, asked: Asked) -> Response:
        return _answer(request, operation.act(parts, asked))

    return Route(operation.path, desk.guarded(endpoint), methods=[operation.method])


def _route_together(operation: Operation, parts: Parts, desk: Desk) -> Route:
    """A route whose requests are decided together with others.

    A large body takes long, so it is decided alone, and keeps nobody else waiting.
    """
    gathering = Gathering(partial(operation.act_together, parts), desk.workers)

    async def endpoint(request: Request) -> Response:
        read_query(request, operation.query)
        async with desk.bodies.reading(request, operation.limit) as body:
            if len(body) > LARGE_BODY:
                return await desk.decide(lambda: reply(operation.act(parts, Asked(body))))
            return encoded(await gathering(body))

    return Route(operation.path, desk.guarded(endpoint), methods=[operation.method])


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
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)


async def _actor(operation: Operation, request: Request, desk: Desk, admission: Admission) -> str:
    """The label of the request's token; nobody's where none is needed."""
    right = operation.right
    if right is None:
        return ""
    header = request.headers.get("authorization")
    token = await desk.decide(lambda: admission.admit(header, right))
    return token.label


def read_query(request: Request, kind: type[msgspec.Struct] | None) -> msgspec.Struct | None:
    """The query string, read strictly. Raises ``BadQuery``."""
    given = request.query_params.multi_items()
    values = dict(given)
    if len(values) != len(given):
        raise BadQuery("a parameter is given twice")
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
