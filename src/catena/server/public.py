"""What anybody may ask: whether the server is up, what its API is, and the log's cosigned checkpoint."""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from catena.formats.openapi import Document
from catena.server import page
from catena.server.answer import JSON, TEXT, Desk, Endpoint, reply
from catena.server.cosigning import COSIGNED, Collector, NotCosigned
from catena.server.faults import NotReady
from catena.server.operation import Operation
from catena.server.readiness import Readiness


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The server answers."""

    status: Literal["ok"] = "ok"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The server can decide, and will for a while."""

    status: Literal["ready"] = "ready"


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation("GET", "/healthz", "Whether the server answers", answer=Health),
    Operation(
        "GET",
        "/readyz",
        "Whether the server should be sent requests",
        answer=Ready,
        refuses=(NotReady,),
    ),
    Operation(
        "GET", "/v1/openapi.json", "This API, described for programs", answer=dict[str, object]
    ),
    Operation("GET", "/v1/docs", "This API, described for people", media=page.HTML),
    Operation(
        "GET",
        f"/log/{COSIGNED}",
        "The newest checkpoint that has its quorum of witnesses",
        media=TEXT,
        refuses=(NotCosigned,),
    ),
)
_HEALTHZ, _READYZ, _OPENAPI, _DOCS, _COSIGNED = (one.path for one in OPERATIONS)


def routes(
    desk: Desk, document: Document, collector: Collector | None, readiness: Readiness
) -> list[Route]:
    """The routes of the table; ``document`` describes them and all others."""
    described, shown = document.encode(), page.render(document)
    answers: dict[str, Endpoint] = {
        _HEALTHZ: _health,
        _READYZ: _ready(readiness),
        _OPENAPI: _constant(described, JSON, {}),
        _DOCS: _constant(shown, page.HTML, page.HEADERS),
        _COSIGNED: _cosigned(collector),
    }
    return [Route(path, desk.guarded(answer), methods=["GET"]) for path, answer in answers.items()]


async def _health(_: Request) -> Response:
    return reply(Health())


def _ready(readiness: Readiness) -> Endpoint:
    async def answer(_: Request) -> Response:
        report = await readiness.look()
        if not report.is_ready:
            raise NotReady(str(report))
        return reply(Ready())

    return answer


def _constant(content: bytes, media: str, headers: dict[str, str]) -> Endpoint:
    async def answer(_: Request) -> Response:
        return Response(content, 200, {"cache-control": "no-cache", **headers}, media)

    return answer


def _cosigned(collector: Collector | None) -> Endpoint:
    async def answer(_: Request) -> Response:
        if collector is None:
            raise NotCosigned("this log has no witnesses")
        return Response(collector.content(), 200, {"cache-control": "no-cache"}, TEXT)

    return answer
