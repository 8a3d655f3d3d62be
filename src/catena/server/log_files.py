"""The log for whoever reads it: C2SP tlog-tiles over HTTP, below ``/log``.

===========================  ==============================  ===================================
path                          content type                    may be kept
===========================  ==============================  ===================================
``/log/checkpoint``           ``text/plain; charset=utf-8``   not at all
``/log/tile/…``               ``application/octet-stream``    for ever
===========================  ==============================  ===================================

A path is served only if ``audit.tiles`` would have written it. The log names nodes and what they ran, so reading
takes the right ``log:read`` (an auditor has it, a viewer has not), unless ``log_public`` is set.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from catena.audit import tiles
from catena.audit.folder import MAX_CHECKPOINT
from catena.audit.reader import LogReader
from catena.audit.tiles import CHECKPOINT, FULL_TILE, MAX_BUNDLE
from catena.errors import FormatError, NotFound
from catena.server.admission import Admission
from catena.server.answer import TEXT, Desk
from catena.server.operation import Operation
from catena.service.roles import Right

PREFIX = "/log"
_FRESH = {"cache-control": "no-cache"}
_FOR_EVER = {"cache-control": "max-age=604800, immutable"}


TilePath = Annotated[
    str, msgspec.Meta(pattern=r"^(entries|[0-9]{1,2})(/x[0-9]{3}){0,6}/[0-9]{3}(\.p/[0-9]{1,3})?\Z")
]


class NoSuchTile(NotFound):
    """A path below the log's that is no file of it, or not yet."""

    code = "no-such-tile"
    remedy = "Read the checkpoint first: it says how many entries, and so which tiles, there are."


OPERATIONS: Final = (
    Operation(
        "GET",
        f"{PREFIX}/{CHECKPOINT}",
        "The log's newest checkpoint; no token if `log_public` is set",
        right=Right.LOG_READ,
        media=TEXT,
        refuses=(NoSuchTile,),
    ),
    Operation(
        "GET",
        f"{PREFIX}/tile/{{name:path}}",
        "Hashes or entries of the log (C2SP tlog-tiles); no token if `log_public` is set",
        right=Right.LOG_READ,
        name=TilePath,
        media="application/octet-stream",
        refuses=(NoSuchTile,),
    ),
)


def routes(log: LogReader, desk: Desk, admission: Admission | None) -> list[Route]:
    """The routes of the table; without ``admission`` anybody may read."""

    async def answer(request: Request) -> Response:
        header = request.headers.get("authorization")
        name = request.scope["path"].removeprefix(f"{PREFIX}/")
        return await desk.decide(lambda: _answer(log, admission, header, name))

    return [Route(one.path, desk.guarded(answer), methods=[one.method]) for one in OPERATIONS]


def _answer(log: LogReader, admission: Admission | None, header: str | None, name: str) -> Response:
    if admission is not None:
        admission.admit(header, Right.LOG_READ)
    if name == CHECKPOINT:
        content = _read(log, name, MAX_CHECKPOINT)
        return Response(content, 200, _FRESH, TEXT)
    try:
        tile = tiles.parse_path(name)
    except FormatError as error:
        raise NoSuchTile("no file of a log has this path") from error
    content = _read(log, name, MAX_BUNDLE if tile.level is None else FULL_TILE)
    return Response(content, 200, _FOR_EVER, "application/octet-stream")


def _read(log: LogReader, name: str, limit: int) -> bytes:
    content = log.read(name, limit)
    if content is None or len(content) > limit:
        raise NoSuchTile("the log does not have this file")
    return content
