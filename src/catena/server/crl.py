"""``GET /v1/crl``: the list of revoked certificates, for anybody (RFC 5280, section 4.2.1.13).

Below it is that of each CA which is believed, by its key: certificates name that of their own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from catena.formats.nodeapi import Hex256
from catena.server.answer import Desk
from catena.server.operation import Operation
from catena.service.authorities import UnknownAuthority
from catena.service.crl import Crl, CrlMoved
from catena.service.trust import TrustService

CRL_PATH = "/v1/crl"
PKIX_CRL = "application/pkix-crl"
"""RFC 2585, section 4.2."""
MAX_AGE = 60
"""Seconds for which a cache may keep a list: so long a revocation may go unseen there."""

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        CRL_PATH,
        "The list of revoked certificates, in DER",
        media=PKIX_CRL,
        refuses=(CrlMoved,),
    ),
    Operation(
        "GET",
        f"{CRL_PATH}/{{name}}",
        "That of one CA of /v1/bundle, by the SHA-256 of its key",
        name=Hex256,
        media=PKIX_CRL,
        refuses=(CrlMoved, UnknownAuthority),
    ),
)


def routes(desk: Desk, service: TrustService) -> list[Route]:
    """The routes of the table."""

    async def answer(request: Request) -> Response:
        name = request.path_params.get("name")
        crl = await desk.decide(
            service.crl.current if name is None else lambda: service.crl.of(name)
        )
        headers = _headers(crl, service.setting.now())
        if headers["etag"] in _known_tags(request):
            return Response(status_code=304, headers=headers)
        return Response(crl.der, 200, headers, PKIX_CRL)

    return [Route(one.path, desk.guarded(answer), methods=["GET"]) for one in OPERATIONS]


def _headers(crl: Crl, now: datetime) -> dict[str, str]:
    left = int((crl.renewed_at - now).total_seconds())
    return {
        "cache-control": f"public, max-age={max(0, min(MAX_AGE, left))}",
        "etag": f'"{crl.number}"',
    }


def _known_tags(request: Request) -> tuple[str, ...]:
    """What the caller has already (RFC 9110, section 13.1.2)."""
    given = request.headers.get("if-none-match", "")
    return tuple(one.strip().removeprefix("W/") for one in given.split(","))
