"""Revocation: what a node was given is taken back, by a person or by an untrusted verdict.

Log first, then one transaction: the node is untrusted and its renewals stop, its valid
certificates go on the CRL, and the secrets that it holds are marked for rotation. The
transaction compares and swaps the node as it was read, as that of an attestation does: of the two,
the later one starts anew, so no certificate slips out between them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import datetime

from catena.audit.entries import Revocation
from catena.ids import NodeId
from catena.service import states
from catena.service.nodes import find
from catena.service.pseudonyms import SERVER
from catena.service.setting import Setting
from catena.service.views import ExposedSecret, RevocationCause, RevocationRequest, RevocationView
from catena.store.database import Transaction
from catena.store.errors import NodeMoved
from catena.store.nodes import Node

ATTEMPTS = 3
WITHDRAWN: RevocationCause = "privilege-withdrawn"
"""Why certificates are revoked when nobody says otherwise."""
_NAMED = 64
"""Certificates, or secrets, that one entry names."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a node that was trusted loses."""

    certificates: tuple[str, ...] = ()
    """Serial numbers, lower-case hex."""
    secrets: tuple[ExposedSecret, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.certificates or self.secrets)

    def entries(self, node: Node, reason: str, actor: str, at: datetime) -> tuple[Revocation, ...]:
        """At least one log entry; more if one cannot name everything."""
        named = (f"{one.name} version {one.version}" for one in self.secrets)
        chunks = itertools.zip_longest(
            _chunks(self.certificates), _chunks(tuple(named)), fillvalue=()
        )
        return tuple(
            Revocation(
                at=at,
                actor=actor,
                node_id=node.id,
                node_name=node.name,
                reason=reason,
                certificates=certificates,
                secrets=secrets,
            )
            for certificates, secrets in list(chunks) or [((), ())]
        )

    def take(
        self, rows: Transaction, node: Node, at: datetime, cause: RevocationCause = WITHDRAWN
    ) -> None:
        """Let it take effect; the transaction has compared and swapped the node before."""
        if rows.certificates.revoke(node.id, at=at, reason=cause):
            rows.crls.outdate()
        rows.secrets.expose(node.id, at=at)


NOTHING_LOST = Loss()


def loss_of(rows: Transaction, node: Node, now: datetime) -> Loss:
    """What the node has that is valid at ``now``."""
    return Loss(
        tuple(one.serial for one in rows.certificates.valid(node.id, now=now)),
        tuple(
            ExposedSecret(name=one.name, version=one.version)
            for one in rows.secrets.losable(node.id)
        ),
    )


def loss_by_verdict(rows: Transaction, node: Node, new_state: str, now: datetime) -> Loss:
    """What a node loses that a verdict made untrusted."""
    if node.state != states.TRUSTED or new_state != states.UNTRUSTED:
        return NOTHING_LOST
    return loss_of(rows, node, now)


def verdict_entries(loss: Loss, node: Node, why: str, at: datetime) -> tuple[Revocation, ...]:
    """What the log says of that."""
    return loss.entries(node, f"untrusted verdict: {why}", SERVER, at) if loss else ()


class Revocations:
    """The verb *revoke*."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def revoke(self, name: str, request: RevocationRequest, actor: str) -> RevocationView:
        """Take a node's trust away until somebody readmits it. Again changes nothing.

        Raises ``UnknownNode``, ``AmbiguousNode``, or ``NodeMoved`` if others go on deciding about it.
        """
        with self._setting.database.snapshot() as rows:
            node_id = find(rows, name).id
        with self._setting.journal.deciding(node_id):
            for _ in range(ATTEMPTS - 1):
                try:
                    return self._attempt(node_id, request, actor)
                except NodeMoved:
                    continue  # another replica concluded an attestation: take that back, too
            return self._attempt(node_id, request, actor)

    def _attempt(self, node_id: NodeId, request: RevocationRequest, actor: str) -> RevocationView:
        now, journal = self._setting.now(), self._setting.journal
        with self._setting.database.snapshot() as rows:
            node = find(rows, node_id)
            loss = loss_of(rows, node, now)
        if _is_revoked(node) and not loss:
            return _view(node, loss, changed=False)
        journal.record(*loss.entries(node, request.reason, actor, now))
        with journal.effect() as rows:
            rows.nodes.hold(node)
            rows.nodes.stand(node, states.UNTRUSTED, states.REVOKED.code, readmitted=False, now=now)
            loss.take(rows, node, now, request.cause)
        return _view(node, loss, changed=True)


def _is_revoked(node: Node) -> bool:
    return (node.state, node.state_reason) == (
        states.UNTRUSTED,
        states.REVOKED.code,
    ) and not node.readmitted


def _view(node: Node, loss: Loss, *, changed: bool) -> RevocationView:
    return RevocationView(
        node=node.id,
        name=node.name,
        changed=changed,
        certificates=loss.certificates,
        secrets=loss.secrets,
    )


def _chunks(items: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [items[start : start + _NAMED] for start in range(0, len(items), _NAMED)]
