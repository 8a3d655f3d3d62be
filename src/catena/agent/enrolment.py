"""Enrolment from the node's side (TRUST, "Enrolment"): this AK belongs to this TPM.

1. The node sends its EK certificates, EK and AK public areas, and perhaps a name hint.
5. It opens the server's challenge with TPM2_ActivateCredential, which only the TPM with that
   EK can, and only while that AK is loaded.

(Steps 2–4, 6 and 7 are the server's.)
"""

from __future__ import annotations

import hashlib

from catena.agent.client import TrustClient
from catena.errors import Refusal
from catena.formats.nodeapi import ActivateRequest, EnrollRequest, EnrollResult
from catena.ids import NodeId
from catena.tpm.device import Tpm


class ForeignChallenge(Refusal):
    """The server's challenge is addressed to another node."""

    code = "foreign-challenge"
    remedy = "The trust service confuses nodes; see its log before enrolling again."


def node_id(ek_public: bytes) -> NodeId:
    """TRUST step 6: a node is the SHA-256 of its EK's public area."""
    return NodeId(hashlib.sha256(ek_public).hexdigest())


def enrol(tpm: Tpm, client: TrustClient, *, name_hint: str | None = None) -> EnrollResult:
    """Enrol this TPM; the result says whether a person has to approve it."""
    ek_public = tpm.ek_public()
    challenge = client.enroll(  # 1.
        EnrollRequest(
            ek_certificates=tpm.ek_certificates(),
            ek_public=ek_public,
            ak_public=tpm.ak_public(),
            name_hint=name_hint,
        )
    )
    own = node_id(ek_public)
    if challenge.node_id != own:
        raise ForeignChallenge("the challenge is for another node", expected=own[:16])
    secret = tpm.activate_credential(  # 5.
        challenge.credential_blob, challenge.encrypted_secret
    )
    result = client.activate(ActivateRequest(ticket=challenge.ticket, secret=secret))
    if result.node_id != own:
        raise ForeignChallenge("the enrolment is of another node", expected=own[:16])
    return result
