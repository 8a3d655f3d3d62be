"""The node API (``formats.nodeapi``, version 1): what machines call.

Nobody is authenticated by the transport here: a node proves itself with its TPM, in the body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from catena.evidence import Evidence
from catena.formats import nodeapi
from catena.server.answer import Desk, reply
from catena.service.trust import TrustService

SMALL_BODY = 256 * 1024

B = TypeVar("B", bound=msgspec.Struct)


def routes(service: TrustService, desk: Desk) -> list[Route]:
    """The routes of the table in ``formats.nodeapi``."""
    enrolment, attestation = service.enrolment, service.attestation
    return [
        _post(desk, "/v1/enroll", nodeapi.EnrollRequest, enrolment.begin, SMALL_BODY),
        _post(desk, "/v1/enroll/activate", nodeapi.ActivateRequest, enrolment.finish, SMALL_BODY),
        _post(desk, "/v1/nonce", nodeapi.NonceRequest, attestation.nonce, SMALL_BODY),
        _post(desk, "/v1/attest", Evidence, attestation.attest, None),
    ]


def _post(
    desk: Desk, path: str, kind: type[B], verb: Callable[[B], object], limit: int | None
) -> Route:
    async def endpoint(request: Request) -> Response:
        async with desk.bodies.reading(request, limit) as body:
            return await desk.decide(lambda: reply(verb(nodeapi.decode(body, kind))))

    return Route(path, desk.guarded(endpoint), methods=["POST"])
