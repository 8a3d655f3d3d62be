"""The ASGI application: node API, admin API, health, and JSON for everything else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from catena.audit.reader import LogReader
from catena.formats.structs import make_ready
from catena.server import (
    admin,
    bundle,
    crl,
    events,
    log_files,
    login,
    machines,
    nodes,
    openapi,
    public,
    ratelimit,
    routing,
)
from catena.server.access import AccessLog, Write, to_stderr
from catena.server.admission import Admission
from catena.server.answer import Desk
from catena.server.body import BodyReader
from catena.server.config import Config
from catena.server.cosigning import Collector
from catena.server.exporting import Exporters
from catena.server.faults import NoSuchRoute, WrongMethod
from catena.server.feed import Feed
from catena.server.operation import Parts
from catena.server.ratelimit import AddressLimit
from catena.server.readiness import Readiness
from catena.service.login import Login
from catena.service.trust import TrustService
from catena.service.uses import Purpose

if TYPE_CHECKING:
    from catena.server.metrics import Metrics

OPERATIONS: Final = (
    *nodes.OPERATIONS,
    *login.OPERATIONS,
    *bundle.OPERATIONS,
    *admin.OPERATIONS,
    *machines.OPERATIONS,
    *public.OPERATIONS,
    *crl.OPERATIONS,
    *log_files.OPERATIONS,
    *events.OPERATIONS,
)
"""Everything that the application answers, as ``openapi`` describes it."""


def build_app(
    service: TrustService,
    config: Config,
    write: Write = to_stderr,
    collector: Collector | None = None,
    *,
    log: LogReader | None = None,
    exporters: Exporters | None = None,
    people: Login | None = None,
    feed: Feed | None = None,
    readiness: Readiness | None = None,
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ASGIApp:
    """The application over one service; ``write`` takes log lines, ``log`` is what it serves, ``feed`` tells of it."""
    make_ready()  # requests are worked on in threads
    bodies = BodyReader(config.max_body, config.body_budget, config.body_timeout)
    desk = Desk(bodies, CapacityLimiter(config.workers), write, config.queue_timeout)

    async def no_such_route(request: Request, _: Exception) -> Response:
        return desk.refuse(request, NoSuchRoute("this API has no such path"))

    async def wrong_method(request: Request, _: Exception) -> Response:
        return desk.refuse(request, WrongMethod("this path has other methods"))

    parts = Parts(
        service,
        collector,
        exporters,
        people,
        ratelimit.of_nodes(config, clock),
        metrics.verdict if metrics else lambda _: None,
    )
    described, routes = _routes(
        parts, desk, config=config, log=log, feed=feed, readiness=readiness or Readiness({})
    )
    application = Starlette(
        routes=routes, exception_handlers={404: no_such_route, 405: wrong_method}
    )
    application.router.redirect_slashes = False
    often = [operation for operation in nodes.OPERATIONS if operation.together is not None]
    guarded: ASGIApp = routing.ShortWay(application, described, often)
    addresses = ratelimit.of_addresses(config, clock)
    if addresses is not None:
        guarded = AddressLimit(guarded, addresses, desk.refuse)
    if metrics is None:
        return AccessLog(guarded, write, service.setting.random)
    metrics.know({route.endpoint: route.path for route in routes}, desk)
    return AccessLog(guarded, write, service.setting.random, metrics.request)


def _routes(
    parts: Parts,
    desk: Desk,
    *,
    config: Config,
    log: LogReader | None,
    feed: Feed | None,
    readiness: Readiness,
) -> tuple[list[Route], list[Route]]:
    """The routes of what nodes and admins ask, and all routes there are."""
    service = parts.service

    def admission(purpose: Purpose) -> Admission:
        return Admission(service.setting.database, service.uses, purpose, service.setting.now)

    described = routing.routes(
        (
            *nodes.OPERATIONS,
            *login.OPERATIONS,
            *bundle.OPERATIONS,
            *admin.OPERATIONS,
            *machines.OPERATIONS,
        ),
        parts,
        desk,
        admission("admin"),
    )
    routes = [
        *public.routes(desk, openapi.describe(OPERATIONS), parts.collector, readiness),
        *crl.routes(desk, service),
        *described,
    ]
    if log is not None:
        routes += log_files.routes(log, desk, None if config.log_public else admission("log"))
    if feed is not None:
        routes += events.routes(feed, desk, admission("log"))
    return described, routes
