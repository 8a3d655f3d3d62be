"""The node API (``formats.nodeapi``, version 1): what machines call.

Nobody is authenticated by the transport here: a node proves itself with its TPM, in the body.
"""

from __future__ import annotations

from typing import Final

from catena.appraise.attestation_key import AttestationKeyRefusal
from catena.appraise.endorsement_refusal import EndorsementRefusal
from catena.appraise.refusal import UnauthenticatedRefusal
from catena.evidence import Evidence
from catena.formats import nodeapi
from catena.server.operation import Operation
from catena.service.attestation import LogsMissing, RacedAttestation
from catena.service.nodes import UnknownNode
from catena.service.ticket import ExpiredTicket, ForgedTicket, WrongActivationSecret
from catena.store.errors import Conflict

SMALL_BODY = 256 * 1024

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
        refuses=(ExpiredTicket, ForgedTicket, WrongActivationSecret, Conflict),
        limit=SMALL_BODY,
        verb=lambda at, call: at.service.enrolment.finish(call.body),
    ),
    Operation(
        "POST",
        "/v1/nonce",
        "A nonce for the next quote",
        takes=nodeapi.NonceRequest,
        answer=nodeapi.NonceResponse,
        refuses=(UnknownNode,),
        limit=SMALL_BODY,
        verb=lambda at, call: at.service.attestation.nonce(call.body),
        together=lambda at, bodies: at.service.attestation.nonces(bodies),
    ),
    Operation(
        "POST",
        "/v1/attest",
        "Evidence for a verdict; a trusted node receives its certificate and secrets",
        takes=Evidence,
        answer=nodeapi.AttestResult,
        refuses=(LogsMissing, RacedAttestation, UnauthenticatedRefusal, UnknownNode),
        verb=lambda at, call: at.service.attestation.attest(call.body),
        together=lambda at, bodies: at.service.attestation.attest_all(bodies),
    ),
)
