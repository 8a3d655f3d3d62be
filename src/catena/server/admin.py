"""The admin API: what people and their tools call, each with a bearer token.

======  ================================  =========  =========================================
method  path below ``/v1/admin``          role       answer
======  ================================  =========  =========================================
GET     ``/nodes``                        viewer     ``NodeView`` of every node
GET     ``/nodes/NODE``                   viewer     ``NodeView``
GET     ``/nodes/NODE/explanation``       viewer     ``ExplanationView``
POST    ``/nodes/NODE/approval``          admin      ``ApprovalRequest`` → ``NodeView``
GET     ``/nodes/NODE/capture``           viewer     ``CaptureView``: what would be accepted
POST    ``/captures``                     admin      ``CaptureRequest`` → ``ReferenceView``
GET     ``/secrets``                      viewer     ``SecretView`` of every secret
PUT     ``/secrets/NAME``                 admin      ``SecretRequest`` → ``SecretView``
DELETE  ``/secrets/NAME``                 admin      ``Removed``
GET     ``/references``                   viewer     ``ReferenceView`` of every reference
POST    ``/references``                   admin      a DSSE envelope → ``ReferenceView``
POST    ``/pcr-policies``                 admin      ``PcrPolicyRequest`` → ``ReferenceView``
GET     ``/references/NAME``              viewer     ``ReferenceDetail``
GET     ``/policy``                       viewer     ``PolicyHistory``
POST    ``/policy``                       admin      a DSSE envelope → ``PolicyView``
GET     ``/witnesses``                    viewer     ``CosigningReport``
GET     ``/people``                       admin      ``Person`` behind each pseudonym of the log
DELETE  ``/people/DIGITS``                admin      ``Forgotten``
GET     ``/export``                       viewer     ``ExportsReport``
POST    ``/policy/simulation``            viewer     ``SimulationRequest`` → ``SimulationView``
======  ================================  =========  =========================================

The token is checked before the body is read.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from catena.audit import people
from catena.formats import nodeapi
from catena.server.admission import Admission
from catena.server.answer import Desk, reply
from catena.server.cosigning import Collector, NotCosigned
from catena.server.exporting import Exporters
from catena.server.tokens import Role
from catena.service import shipped
from catena.service.trust import TrustService
from catena.service.views import (
    ApprovalRequest,
    CaptureRequest,
    CosigningReport,
    ExportsReport,
    PcrPolicyRequest,
    SecretRequest,
    SimulationRequest,
)
from catena.store.database import Database

PREFIX = "/v1/admin"

Verb = Callable[[str, bytes, str], object]
"""Takes the name in the path, the body, and the actor (the token's label)."""


def routes(
    service: TrustService,
    database: Database,
    desk: Desk,
    collector: Collector | None = None,
    exporters: Exporters | None = None,
) -> list[Route]:
    """The routes of the module's table."""
    nodes, secrets, references = service.nodes, service.secrets, service.references
    table: list[tuple[str, str, Verb]] = [
        ("GET", "/nodes", lambda _, __, ___: nodes.list()),
        ("GET", "/nodes/{name}", lambda name, _, __: nodes.show(name)),
        ("GET", "/nodes/{name}/explanation", lambda name, _, __: nodes.explain(name)),
        ("POST", "/nodes/{name}/approval", _approval(service)),
        ("GET", "/nodes/{name}/capture", lambda name, _, __: references.preview(name)),
        ("POST", "/captures", _capture(service)),
        ("GET", "/secrets", lambda _, __, ___: secrets.list()),
        ("PUT", "/secrets/{name}", _secret(service)),
        ("DELETE", "/secrets/{name}", lambda name, _, actor: secrets.remove(name, actor)),
        (
            "DELETE",
            "/people/{name}",
            lambda name, _, actor: service.people.forget(people.PREFIX + name, actor),
        ),
        ("GET", "/references", lambda _, __, ___: (*references.list(), *shipped.views())),
        ("POST", "/references", lambda _, body, actor: references.accept(body, actor)),
        ("POST", "/pcr-policies", _pcr_policy(service)),
        (
            "GET",
            "/references/{name}",
            lambda name, _, __: shipped.find(name) or references.show(name),
        ),
        ("GET", "/policy", lambda _, __, ___: service.policies.show()),
        ("POST", "/policy", lambda _, body, actor: service.policies.apply(body, actor)),
        ("GET", "/witnesses", lambda _, __, ___: _witnesses(collector)),
        ("GET", "/export", lambda _, __, ___: exporters.status() if exporters else ExportsReport()),
    ]
    gate = _Gate(Admission(database, service.uses, "admin"), desk)
    apart = (
        # It changes nothing, so that whoever may look may ask.
        gate.route("POST", "/policy/simulation", _simulation(service), Role.VIEWER),
        # Who a pseudonym stands for is not everybody's to know.
        gate.route("GET", "/people", lambda _, __, ___: service.people.list(), Role.ADMIN),
    )
    return [*(gate.route(method, path, verb) for method, path, verb in table), *apart]


class _Gate:
    """Lets a request through to its verb once its token allows it."""

    def __init__(self, admission: Admission, desk: Desk) -> None:
        self._admission = admission
        self._desk = desk

    def route(self, method: str, path: str, verb: Verb, least: Role | None = None) -> Route:
        role = least or (Role.VIEWER if method == "GET" else Role.ADMIN)

        async def endpoint(request: Request) -> Response:
            header = request.headers.get("authorization")
            token = await self._desk.decide(lambda: self._admission.admit(header, role))
            name = request.path_params.get("name", "")
            async with self._desk.bodies.reading(request) as body:
                return await self._desk.decide(lambda: reply(verb(name, body, token.label)))

        return Route(PREFIX + path, self._desk.guarded(endpoint), methods=[method])


def _witnesses(collector: Collector | None) -> CosigningReport:
    if collector is None:
        raise NotCosigned("this server has no witnesses")
    return collector.status()


def _approval(service: TrustService) -> Verb:
    return lambda name, body, actor: service.approval.approve(
        name, nodeapi.decode(body, ApprovalRequest), actor
    )


def _capture(service: TrustService) -> Verb:
    return lambda _, body, actor: service.references.capture(
        nodeapi.decode(body, CaptureRequest), actor
    )


def _pcr_policy(service: TrustService) -> Verb:
    return lambda _, body, actor: service.references.accept_policy(
        nodeapi.decode(body, PcrPolicyRequest), actor
    )


def _secret(service: TrustService) -> Verb:
    return lambda name, body, actor: service.secrets.put(
        name, nodeapi.decode(body, SecretRequest), actor
    )


def _simulation(service: TrustService) -> Verb:
    return lambda _, body, __: service.simulation.run(nodeapi.decode(body, SimulationRequest))
