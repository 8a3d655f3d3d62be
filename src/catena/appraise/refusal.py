"""The two kinds of refusal an attestation can meet, and how to tell them apart.

TRUST, attestation step 5, runs from a to j. Until a to c hold, anybody on the network could
have sent the evidence: such a failure says something about the sender and nothing about the
node. From d on, the enrolled TPM itself signed what is being refused, for this exchange.
"""

from __future__ import annotations

from typing import ClassVar

from catena.errors import Refusal
from catena.measure.facts import ContradictoryVariable
from catena.measure.grammar import BadGrammar


class AttestationRefusal(Refusal):
    """Evidence that failed one of the steps a to h; ``step`` is the letter of TRUST.

    ``authenticated`` says whether the enrolled TPM signed the evidence for this exchange.
    Only then may a refusal change what is thought of the node.
    """

    code = "attestation-refused"
    authenticated: ClassVar[bool] = True
    step: ClassVar[str] = ""


class UnauthenticatedRefusal(AttestationRefusal):
    """Steps a to c: the evidence is not shown to come from the node it names."""

    code = "evidence-unauthenticated"
    authenticated = False
    remedy = "Nothing is known against the node itself; look at who sent this."


def is_authenticated(error: Refusal) -> bool:
    """Whether ``error`` speaks about the node and not merely about a sender.

    Refusals of the grammar and of the boot facts (steps g and h) are only reached by
    authenticated evidence. False for every refusal that is not part of an attestation.
    """
    if isinstance(error, AttestationRefusal):
        return error.authenticated
    return isinstance(error, BadGrammar | ContradictoryVariable)
