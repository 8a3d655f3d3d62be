"""The end of a node, and what is like it: retired, replaced by another TPM, rejected.

A retired node is off the rolls: its name is free, its certificate is not renewed, its evidence and
its enrolment are refused. Only a person brings it back, by an approval with name and role. What it was
given is revoked with it.
"""

from __future__ import annotations

import hashlib

from catena.audit.entries import Approval as ApprovalEntry
from catena.audit.entries import KeyRejected, Revocation, Transition
from catena.errors import UsageError
from catena.ids import NodeId
from catena.service import states
from catena.service.nodes import Nodes, find
from catena.service.revocation import NOTHING_LOST, Loss, loss_of
from catena.service.setting import Setting
from catena.service.views import Farewell, FarewellRequest, ReplacementRequest
from catena.store.database import Transaction
from catena.store.errors import Conflict
from catena.store.nodes import Node

MAX_SECRETS = 64


class AlreadyRetired(UsageError):
    """A node that is off the rolls already."""

    code = "already-retired"
    remedy = "`catena node list --all` shows retired nodes."


class NothingToReject(UsageError):
    """A node that waits for no approval."""

    code = "nothing-to-reject"
    remedy = "`catena node retire` takes an approved node off the rolls."


class UnfitReplacement(UsageError):
    """A machine that cannot take another's place."""

    code = "unfit-replacement"
    remedy = "Enrol the new TPM, and replace the old node before anybody approves the new one."


class Retirement:
    """The verbs *retire*, *replace* and *reject*; each decision is one transaction."""

    def __init__(self, setting: Setting, nodes: Nodes) -> None:
        self._setting = setting
        self._nodes = nodes

    def retire(self, name: str, request: FarewellRequest, actor: str) -> Farewell:
        """Take a node off the rolls. Raises ``UnknownNode``, ``AlreadyRetired``, ``Conflict``."""
        node_id = self._id_of(name)
        with self._setting.journal.deciding(node_id):
            node, secrets, loss = self._leaving(node_id)
            self._setting.journal.record(
                self._transition(node, request.reason, secrets, actor),
                *self._revoked(node, loss, request.reason, actor),
            )
            with self._setting.journal.effect() as rows:
                self._retire(rows, node, request.reason, loss)
        return Farewell(node=self._nodes.show(node_id), secrets=secrets)

    def replace(self, name: str, request: ReplacementRequest, actor: str) -> Farewell:
        """A new TPM takes the name and role of an old one, which is retired.

        Raises ``UnknownNode``, ``AlreadyRetired``, ``UnfitReplacement``, ``NotVouchedFor``, ``Conflict``.
        """
        old_id, new_id = self._id_of(name), self._id_of(request.by)
        with self._setting.journal.deciding_all((old_id, new_id)):
            old, secrets, loss = self._leaving(old_id)
            with self._setting.database.snapshot() as rows:
                new = find(rows, new_id)
            _require_fit(old, new)
            reason = f"replaced by {new.id}"
            self._setting.journal.record(
                self._transition(old, reason, secrets, actor),
                *self._revoked(old, loss, reason, actor),
                ApprovalEntry(
                    at=self._setting.now(),
                    actor=actor,
                    node_id=new.id,
                    node_name=old.name,
                    ak_sha256=hashlib.sha256(new.ak_public).hexdigest(),
                    role=old.role or "",
                ),
            )
            with self._setting.journal.effect() as rows:
                self._retire(rows, old, reason, loss)
                self._succeed(rows, old, new)
        return Farewell(node=self._nodes.show(new_id), secrets=secrets)

    def reject(self, name: str, request: FarewellRequest, actor: str) -> Farewell:
        """Refuse what waits for approval: a machine, or a known machine's other key.

        Raises ``UnknownNode``, ``NothingToReject``, ``Conflict``.
        """
        node_id = self._id_of(name)
        with self._setting.journal.deciding(node_id):
            with self._setting.database.snapshot() as rows:
                node, waiting = find(rows, node_id), rows.reenrolments.get(node_id)
            if waiting is not None:
                digest = hashlib.sha256(waiting.ak_public).hexdigest()
                self._setting.journal.record(
                    KeyRejected(
                        at=self._setting.now(),
                        actor=actor,
                        node_id=node.id,
                        node_name=node.name,
                        ak_sha256=digest,
                        reason=request.reason,
                    )
                )
                with self._setting.journal.effect() as rows:
                    rows.reenrolments.remove(node.id)
            elif node.state == states.PENDING and node.approved_at is None:
                self._setting.journal.record(self._transition(node, request.reason, (), actor))
                with self._setting.journal.effect() as rows:
                    self._retire(rows, node, request.reason)
            else:
                raise NothingToReject("the node waits for no approval", got=node.state)
        return Farewell(node=self._nodes.show(node_id))

    def _id_of(self, name: str) -> NodeId:
        with self._setting.database.snapshot() as rows:
            return find(rows, name).id

    def _leaving(self, node_id: NodeId) -> tuple[Node, tuple[str, ...], Loss]:
        """A node that is on the rolls, the secrets it has been given, and what it loses."""
        with self._setting.database.snapshot() as rows:
            node = find(rows, node_id)
            held = rows.secrets.held_by(node.id)
            loss = loss_of(rows, node, self._setting.now())
        if node.state == states.RETIRED:
            raise AlreadyRetired("the node is retired", got=node.state_reason or None)
        return node, tuple(dict.fromkeys(one.name for one in held)), loss

    def _revoked(self, node: Node, loss: Loss, reason: str, actor: str) -> tuple[Revocation, ...]:
        """What the log says of certificates and secrets that a leaving node had."""
        return loss.entries(node, reason, actor, self._setting.now()) if loss else ()

    def _transition(
        self, node: Node, reason: str, secrets: tuple[str, ...], actor: str
    ) -> Transition:
        before, _ = states.shown_state(node, self._setting.now(), self._setting.rhythm)
        return Transition(
            at=self._setting.now(),
            actor=actor,
            node_id=node.id,
            node_name=node.name,
            before=before,
            state=states.RETIRED,
            reason=reason,
            last_attested=node.last_attested,
            secrets=secrets[:MAX_SECRETS],
        )

    def _retire(
        self, rows: Transaction, node: Node, reason: str, loss: Loss = NOTHING_LOST
    ) -> None:
        if not rows.nodes.retire(node, reason, self._setting.now()):
            raise Conflict("the node's state changed meanwhile", expected=node.state)
        rows.reenrolments.remove(node.id)
        if loss:
            loss.take(rows, node, self._setting.now(), "cessation-of-operation")

    def _succeed(self, rows: Transaction, old: Node, new: Node) -> None:
        if old.name is None or old.role is None:
            raise UnfitReplacement("the old node has no name to pass on")
        rows.nodes.approve(
            new.id,
            name=old.name,
            role=old.role,
            state=states.PENDING,
            at=self._setting.now(),
            reason=states.AWAITING_ATTESTATION,
            before=new.state,
        )
        rows.nodes.place(new.id, old.site, old.channel)


def _require_fit(old: Node, new: Node) -> None:
    """Raises ``UnfitReplacement`` or ``NotVouchedFor``."""
    states.require_vouched_for(new)
    if old.name is None or old.role is None:
        raise UnfitReplacement("the old node was never approved: there is nothing to pass on")
    if new.state != states.PENDING or new.approved_at is not None:
        raise UnfitReplacement("the new node waits for no approval", got=new.state)
