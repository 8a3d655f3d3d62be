"""The node API (``formats.nodeapi``, version 1): what machines call.

Nobody is authenticated by the transport here: a node proves itself with its TPM, in the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from catena.appraise.attestation_key import AttestationKeyRefusal
from catena.appraise.endorsement_refusal import EndorsementRefusal
from catena.appraise.refusal import UnauthenticatedRefusal
from catena.evidence import Evidence
from catena.formats import nodeapi
from catena.ids import NodeId
from catena.server.faults import RateLimited
from catena.server.operation import Call, Operation, Parts
from catena.service.attestation import LogsMissing
from catena.service.conclusion import RacedAttestation
from catena.service.inventory import AlreadyArrived, ListedNameTaken, ListedTwice, NotExpected
from catena.service.nodes import UnknownNode
from catena.service.states import RetiredNode
from catena.service.ticket import ExpiredTicket, ForgedTicket, WrongActivationSecret
from catena.store.errors import Conflict

SMALL_BODY = 256 * 1024


def _attest(at: Parts, call: Call[Evidence]) -> nodeapi.AttestResult:
    (outcome,) = _attest_all(at, (call.body,))
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _attest_all(
    at: Parts, bodies: Sequence[Evidence]
) -> Sequence[nodeapi.AttestResult | Exception]:
    """The verb, each within its node's limit. What the TPM signed is counted: all else is refused."""
    limited = [_refusal_by_limit(at, body) for body in bodies]
    within = [body for body, refusal in zip(bodies, limited, strict=True) if refusal is None]
    decided = iter(zip(within, at.service.attestation.attest_all(within), strict=True))
    outcomes: list[nodeapi.AttestResult | Exception] = []
    for refusal in limited:
        if refusal is not None:
            outcomes.append(refusal)
            continue
        body, outcome = next(decided)
        if not isinstance(outcome, Exception):
            if at.node_limit is not None:
                at.node_limit.charge(body.node_id)
            at.attested(outcome)
        outcomes.append(outcome)
    return outcomes


def _refusal_by_limit(at: Parts, body: Evidence) -> RateLimited | None:
    try:
        if at.node_limit is not None:
            at.node_limit.require(body.node_id)
    except RateLimited as error:
        return error
    return None


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "POST",
        "/v1/enroll",
        "Begin to enrol: a challenge that only this TPM can answer",
        takes=nodeapi.EnrollRequest,
        answer=nodeapi.EnrollChallenge,
        refuses=(AttestationKeyRefusal, EndorsementRefusal),
        limit=SMALL_BODY,
        verb=lambda at, call: at.service.enrolment.begin(call.body),
    ),
    Operation(
        "POST",
        "/v1/enroll/activate",
        "Finish to enrol: the secret that the challenge held",
        takes=nodeapi.ActivateRequest,
        answer=nodeapi.EnrollResult,
        refuses=(
            ExpiredTicket,
            ForgedTicket,
            WrongActivationSecret,
            RetiredNode,
            NotExpected,
            ListedTwice,
            AlreadyArrived,
            ListedNameTaken,
            Conflict,
        ),
        limit=SMALL_BODY,
        verb=lambda at, call: at.service.enrolment.finish(call.body),
    ),
    Operation(
        "POST",
        "/v1/nonce",
        "A nonce for the next quote",
        takes=nodeapi.NonceRequest,
        answer=nodeapi.NonceResponse,
        refuses=(UnknownNode, RetiredNode),
        limit=SMALL_BODY,
        verb=lambda at, call: at.service.attestation.nonce(call.body),
        together=lambda at, bodies: at.service.attestation.nonces(bodies),
    ),
    Operation(
        "POST",
        "/v1/demand",
        "Whether somebody wants this node to attest now",
        takes=nodeapi.NonceRequest,
        answer=nodeapi.DemandResponse,
        limit=SMALL_BODY,
        verb=lambda at, call: nodeapi.DemandResponse(
            attest=at.service.demands.is_open(NodeId(call.body.node_id))
        ),
    ),
    Operation(
        "POST",
        "/v1/attest",
        "Evidence for a verdict; a trusted node receives its certificate and secrets",
        takes=Evidence,
        answer=nodeapi.AttestResult,
        refuses=(LogsMissing, RacedAttestation, UnauthenticatedRefusal, UnknownNode, RetiredNode),
        verb=_attest,
        together=_attest_all,
    ),
)
