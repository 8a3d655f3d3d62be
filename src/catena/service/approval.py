"""Approval: a person gives a node its name and role, or lets it back in.

Names and roles come from here and never from a node. Approving also readmits: whoever approves
a node has seen why it waits.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from catena.audit.entries import Approval as ApprovalEntry
from catena.errors import UsageError
from catena.ids import NodeName
from catena.service import states
from catena.service.nodes import Nodes, find
from catena.service.setting import Setting
from catena.service.views import ApprovalRequest, NodeView
from catena.store.errors import Conflict, NameTaken
from catena.store.nodes import Node, Reenrolment


class NameAndRoleNeeded(UsageError):
    """A first approval without a name or a role."""

    code = "name-and-role-needed"
    remedy = "Give --name and --role."


class WaitingKeyUnseen(Conflict):
    """A node with a waiting attestation key, approved without saying what about the key."""

    code = "waiting-key-unseen"
    remedy = "Look at `waiting_key` in `catena node show` and accept exactly that key."


class NothingToApprove(UsageError):
    """A node that waits for nobody."""

    code = "nothing-to-approve"
    remedy = "`catena node show` says what a node waits for."


@dataclass(frozen=True, slots=True)
class _Decision:
    """What an approval changes."""

    name: NodeName
    role: str
    readmitted: bool
    state: str
    """The one the node is in afterwards."""
    reason: str
    ak_public: bytes | None
    """The waiting key that becomes the node's."""


class Approval:
    """The verb *approve*."""

    def __init__(self, setting: Setting, nodes: Nodes) -> None:
        self._setting = setting
        self._nodes = nodes

    def approve(self, name: str, request: ApprovalRequest, actor: str) -> NodeView:
        """Approve, rename, readmit, or accept a new key; all of it in one entry.

        Raises ``UnknownNode``, ``NotVouchedFor``, ``NameTaken``, ``NameAndRoleNeeded``, ``WaitingKeyUnseen``
        or ``NothingToApprove``.
        """
        database = self._setting.database
        with database.snapshot() as rows:
            node_id = find(rows, name).id
        with self._setting.journal.deciding(node_id):
            with database.snapshot() as rows:
                node = find(rows, node_id)
                states.require_vouched_for(node)
                decision = _decide(node, rows.reenrolments.get(node_id), request)
                holder = rows.nodes.find(decision.name)
            if holder is not None and holder.name == decision.name and holder.id != node_id:
                raise NameTaken("another node already has this name", got=decision.name)
            self._take_effect(node, decision, actor)
        return self._nodes.show(node_id)

    def _take_effect(self, node: Node, decision: _Decision, actor: str) -> None:
        now = self._setting.now()
        key = decision.ak_public or node.ak_public
        self._setting.journal.record(
            ApprovalEntry(
                at=now,
                actor=actor,
                node_id=node.id,
                node_name=decision.name,
                ak_sha256=hashlib.sha256(key).hexdigest(),
                role=decision.role,
                readmitted=decision.readmitted,
            )
        )
        with self._setting.journal.effect() as rows:
            # A revocation meanwhile must not be overwritten by what was read before it.
            rows.nodes.hold(node)
            rows.nodes.approve(
                node.id,
                name=decision.name,
                role=decision.role,
                state=decision.state,
                at=now,
                reason=decision.reason,
                readmitted=decision.readmitted,
                before=node.state,
            )
            if decision.readmitted:
                # A TPM that was cleared counts its resets anew; a person answers for that.
                rows.nodes.forget_clock(node.id)
            if decision.ak_public is not None:
                rows.nodes.replace_ak(node.id, decision.ak_public)
                rows.reenrolments.remove(node.id)


def _decide(node: Node, waiting: Reenrolment | None, request: ApprovalRequest) -> _Decision:
    new_name = request.name or node.name
    role = request.role or node.role
    if new_name is None or role is None:
        raise NameAndRoleNeeded("a first approval gives the node its name and role")
    ak_public = _accepted_key(waiting, request)
    # A retired node comes back as if it were new: it has no name, so both must be given.
    returns = node.state == states.RETIRED
    if returns and (request.name is None or request.role is None):
        raise NameAndRoleNeeded("a retired node that comes back is given its name and role anew")
    readmitted = returns or node.state == states.UNTRUSTED
    first = returns or node.approved_at is None
    changes = (new_name, role) != (node.name, node.role)
    if not (changes or readmitted or ak_public or first):
        raise NothingToApprove("the node waits for nothing", got=node.state)
    return _Decision(
        name=NodeName(new_name),
        role=role,
        readmitted=readmitted,
        state=states.PENDING if returns else node.state,
        reason=states.AWAITING_ATTESTATION if first else node.state_reason,
        ak_public=ak_public,
    )


def _accepted_key(waiting: Reenrolment | None, request: ApprovalRequest) -> bytes | None:
    """The waiting key, if the person named exactly it."""
    if request.accept_key is None:
        return None
    digest = "" if waiting is None else hashlib.sha256(waiting.ak_public).hexdigest()
    if waiting is None or not hmac.compare_digest(request.accept_key, digest):
        raise WaitingKeyUnseen(
            "another key waits than the one that was accepted", got=request.accept_key[:80]
        )
    return waiting.ak_public
