"""What a node is to the service, and how verdicts, silence and people move it. Pure.

=============  ====================================  ==========================================
state          because                               leaves it by
=============  ====================================  ==========================================
``pending``    nobody approved it yet                approval, then a first attestation
``pending``    approved, not attested yet            a verdict
``trusted``    approved, last verdict trusted        an untrusted verdict, or silence
``untrusted``  an authenticated untrusted one        a trusted verdict *and* a readmission
``untrusted``  a person revoked it                   a readmission, then a trusted verdict
``untrusted``  nobody vouches for its TPM any more   somebody does again, then as above
``stale``      trusted, then silent for too long     a verdict
``retired``    a person took it off the rolls        a person's approval, as if it were new
=============  ====================================  ==========================================

A node that nobody approved is appraised like any other but stays ``pending``: its verdict is
what a person looks at before approving. A readmission is used up by the next verdict that is
untrusted: it does not excuse what happens later. Silence says nothing against a node: a stale one
is trusted again by a trusted verdict alone. Only trusted nodes become stale, so that nobody gets
round a readmission by being silent. Evidence of a retired node is not even appraised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from catena.errors import Refusal
from catena.formats.nodeapi import JITTER, NodeState, Reason
from catena.store.nodes import Node

PENDING: Final = "pending"
TRUSTED: Final = "trusted"
UNTRUSTED: Final = "untrusted"
STALE: Final = "stale"
RETIRED: Final = "retired"

_STATES: Final[Mapping[str, NodeState]] = {
    PENDING: PENDING,
    TRUSTED: TRUSTED,
    STALE: STALE,
    RETIRED: RETIRED,
}

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
SUSPECTED_CLONE = Reason(
    code="suspected-clone",
    message="A TPM with this key was further ahead: two machines may have it in turns",
    remedy=(
        "Find out whether the TPM was cleared or a virtual machine put back. If not, a copy runs elsewhere: "
        "retire the node, and give the machine another TPM."
    ),
)
REVOKED = Reason(
    code="node-revoked",
    message="The node was revoked and nobody has readmitted it",
    remedy="The log has the reason (`catena audit tail`). `catena node approve NODE` readmits it.",
)
VOUCHED_FOR: Final = ""
"""A node's ``endorsement`` if its TPM is vouched for; else it is the code of why not."""
AWAITING_ATTESTATION = "awaiting-attestation"
VERDICT_EXPIRED = "verdict-expired"
MISSED_INTERVALS = "missed-intervals"
DEMAND_UNANSWERED = "demand-unanswered"


class RetiredNode(Refusal):
    """A machine that was taken off the rolls and came back."""

    code = "retired-node"
    remedy = "If it shall come back, a person approves it as a new one: `catena node approve ID --name --role`."


class NotVouchedFor(Refusal):
    """Nobody that this server accepts vouches for the node's TPM any more."""

    code = "not-vouched-for"
    remedy = (
        "`catena node show` says why. Import what vouches for it again (`catena endorsement import`), "
        "or give the machine another TPM."
    )


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often nodes attest, and how long they may be silent.

    ``interval`` is in seconds, ``of_role`` where a role has another; ``missed`` intervals without an
    attestation, or a verdict older than ``lifetime``, make a trusted node stale.
    """

    interval: int
    missed: int
    lifetime: timedelta
    of_role: Mapping[str, int] = field(default_factory=dict)

    def interval_of(self, role: str | None) -> int:
        """Seconds between two attestations of a node with this role."""
        return self.of_role.get(role or "", self.interval)

    def patience(self, role: str | None) -> timedelta:
        """How long after an attestation a node is stale, if it is not demanded earlier.

        An interval is missed when it is over at its longest (``JITTER``).
        """
        seconds = self.interval_of(role) * self.missed * (1 + JITTER)
        return min(timedelta(seconds=seconds), self.lifetime)

    @property
    def shortest(self) -> timedelta:
        """No role's patience is less."""
        return min(map(self.patience, ("", *self.of_role)))


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
    """The node's standing after a verdict; ``why`` is the first reason's code, or empty.

    Raises ``RetiredNode``: no verdict brings a retired node back.
    """
    require_on_the_rolls(node)
    if node.state_reason == REVOKED.code and not node.readmitted:
        return Standing(UNTRUSTED, REVOKED.code, False, False, REVOKED)
    if node.approved_at is None:
        return Standing(PENDING, AWAITING_APPROVAL.code, False, False, AWAITING_APPROVAL)
    if node.endorsement:
        return Standing(
            UNTRUSTED, node.endorsement, False, False, _not_vouched_for(node.endorsement)
        )
    if not trusted:
        return Standing(UNTRUSTED, why, admitted=False, readmitted=False)
    if node.state == UNTRUSTED and not node.readmitted:
        code = AWAITING_READMISSION.code
        return Standing(UNTRUSTED, code, False, False, AWAITING_READMISSION)
    return Standing(TRUSTED, "", admitted=True, readmitted=False)


def after_judgement(node: Node, endorsement: str) -> tuple[NodeState, str, bool]:
    """State, reason and readmission of a node whose TPM was judged again.

    Who is not vouched for loses trust, and a readmission that was not used yet. Who is again has to be
    readmitted. Of what was never approved, or is retired, nothing is taken: it cannot be approved.
    """
    reason = node.state_reason
    if node.approved_at is None or node.state == RETIRED:
        return named(node.state), reason, node.readmitted
    if endorsement:
        return UNTRUSTED, reason if reason == REVOKED.code else endorsement, False
    if node.state == UNTRUSTED and reason == node.endorsement:
        return UNTRUSTED, AWAITING_READMISSION.code, node.readmitted
    return named(node.state), reason, node.readmitted


def require_vouched_for(node: Node) -> None:
    """Raises ``NotVouchedFor``."""
    if node.endorsement:
        raise NotVouchedFor("nobody vouches for this node's TPM any more", got=node.endorsement)


def _not_vouched_for(code: str) -> Reason:
    return Reason(
        code=code,
        message="Nobody that this server accepts vouches for the TPM any more",
        remedy=NotVouchedFor.remedy,
    )


def require_on_the_rolls(node: Node) -> None:
    """Raises ``RetiredNode``."""
    if node.state == RETIRED:
        raise RetiredNode("this node was retired", got=node.state_reason or None)


def stale_at(node: Node, rhythm: Rhythm) -> datetime | None:
    """When a trusted node becomes, or became, stale; None for a node in another state."""
    if node.state != TRUSTED or node.last_attested is None:
        return None
    silent = node.last_attested + rhythm.patience(node.role)
    return silent if node.attest_by is None else min(silent, node.attest_by)


def why_stale(node: Node, now: datetime, rhythm: Rhythm) -> str | None:
    """Why a trusted node is stale as of now; None if it is not."""
    if node.state != TRUSTED:
        return None
    attested = node.last_attested
    if attested is None or now > attested + rhythm.lifetime:
        return VERDICT_EXPIRED
    if now > attested + rhythm.patience(node.role):
        return MISSED_INTERVALS
    if node.attest_by is not None and now > node.attest_by:
        return DEMAND_UNANSWERED
    return None


def shown_state(node: Node, now: datetime, rhythm: Rhythm) -> tuple[NodeState, str]:
    """State and reason as of now: a trusted node that went silent is stale, recorded so or not."""
    why = why_stale(node, now, rhythm)
    if why is not None:
        return STALE, why
    return named(node.state), node.state_reason


def named(state: str) -> NodeState:
    """A recorded state; one that is not known here is untrusted."""
    return _STATES.get(state, UNTRUSTED)
