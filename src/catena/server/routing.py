"""From tables of operations to routes: let in, read the body, run the verb, answer."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from catena.server.admission import Admission
from catena.server.answer import Desk, reply
from catena.server.operation import Operation, Parts


def routes(
    operations: Iterable[Operation], parts: Parts, desk: Desk, admission: Admission
) -> list[Route]:
    """A route for each operation. The token is checked before the body is read."""
    return [_route(operation, parts, desk, admission) for operation in operations]


def _route(operation: Operation, parts: Parts, desk: Desk, admission: Admission) -> Route:
    async def endpoint(request: Request) -> Response:
        actor = await _actor(operation, request, desk, admission)
        name = request.path_params.get("name", "")
        async with desk.bodies.reading(request, operation.limit) as body:
            return await desk.decide(lambda: reply(operation.act(parts, body, name, actor)))

    return Route(operation.path, desk.guarded(endpoint), methods=[operation.method])


async def _actor(operation: Operation, request: Request, desk: Desk, admission: Admission) -> str:
    """The label of the request's token; nobody's where none is needed."""
    role = operation.role
    if role is None:
        return ""
    header = request.headers.get("authorization")
    token = await desk.decide(lambda: admission.admit(header, role))
    return token.label
