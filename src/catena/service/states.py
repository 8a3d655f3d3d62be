"""What a node is to the service, and how verdicts and people move it. Pure.

=============  =================================  ==========================================
state          because                            leaves it by
=============  =================================  ==========================================
``pending``    nobody approved it yet             approval, then a first attestation
``pending``    approved, not attested yet         a verdict
``trusted``    approved, last verdict trusted     an untrusted verdict
``untrusted``  an authenticated untrusted one     a trusted verdict *and* a readmission
=============  =================================  ==========================================

A node that nobody approved is appraised like any other but stays ``pending``: its verdict is
what a person looks at before approving. A readmission is used up by the next verdict that is
untrusted: it does not excuse what happens later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from catena.formats.nodeapi import NodeState, Reason
from catena.store.nodes import Node

PENDING: Final = "pending"
TRUSTED: Final = "trusted"
UNTRUSTED: Final = "untrusted"

AWAITING_APPROVAL = Reason(
    code="awaiting-approval",
    message="A person has not approved this node yet",
    remedy="Run `catena node approve NODE --name NAME --role ROLE` if the machine is yours.",
)
AWAITING_READMISSION = Reason(
    code="awaiting-readmission",
    message="The node was untrusted and nobody has readmitted it",
    remedy="Find out why it was untrusted (`catena node explain`), then `catena node approve NODE`.",
)
AWAITING_ATTESTATION = "awaiting-attestation"
VERDICT_EXPIRED = "verdict-expired"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a verdict leaves a node; ``admitted`` nodes receive identity and secrets."""

    state: NodeState
    why: str
    admitted: bool
    readmitted: bool
    withheld: Reason | None = None
    """Why a trusted verdict admits nothing."""


def after_verdict(node: Node, *, trusted: bool, why: str) -> Standing:
    """The node's standing after a verdict; ``why`` is the first reason's code, or empty."""
    if node.approved_at is None:
        return Standing(PENDING, AWAITING_APPROVAL.code, False, False, AWAITING_APPROVAL)
    if not trusted:
        return Standing(UNTRUSTED, why, admitted=False, readmitted=False)
    if node.state == UNTRUSTED and not node.readmitted:
        code = AWAITING_READMISSION.code
        return Standing(UNTRUSTED, code, False, False, AWAITING_READMISSION)
    return Standing(TRUSTED, "", admitted=True, readmitted=False)


def shown_state(node: Node, now: datetime, lifetime: timedelta) -> tuple[NodeState, str]:
    """State and reason as of now: a trusted verdict that nobody renewed has expired."""
    if node.state == TRUSTED:
        attested = node.last_attested
        if attested is None or now - attested > lifetime:
            return UNTRUSTED, VERDICT_EXPIRED
        return TRUSTED, node.state_reason
    return (PENDING if node.state == PENDING else UNTRUSTED), node.state_reason
