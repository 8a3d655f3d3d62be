"""A person wants a node to attest now.

Nodes begin every conversation, so a demand is a deadline: a trusted node that lets it pass is
stale. Agents learn of it when they ask (``demand_poll``), and attest at once.
"""

from __future__ import annotations

from datetime import timedelta

from catena.audit.entries import AttestationDemanded
from catena.errors import UsageError
from catena.ids import NodeId
from catena.service import states
from catena.service.nodes import Nodes, find, rfc3339
from catena.service.setting import Setting
from catena.service.views import Demanded, DemandRequest


class NothingToDemand(UsageError):
    """No node that could be asked to attest."""

    code = "nothing-to-demand"
    remedy = "`catena node list` shows nodes with their state and role."


class Demands:
    """The verb *demand*."""

    def __init__(self, setting: Setting, nodes: Nodes) -> None:
        self._setting = setting
        self._nodes = nodes

    def demand(self, request: DemandRequest, actor: str) -> Demanded:
        """One node, a role's, or all: each gets its entry and its deadline.

        Raises ``UnknownNode`` or ``NothingToDemand``.
        """
        now = self._setting.now()
        with self._setting.database.snapshot() as rows:
            named = None if request.node is None else find(rows, request.node)
            nodes = rows.nodes.list() if named is None else (named,)
        asked = [
            node
            for node in nodes
            if node.state != states.RETIRED and request.role in {None, node.role}
        ]
        if not asked:
            raise NothingToDemand("no node is asked for")
        deadlines = {
            node.id: now
            + timedelta(seconds=request.within or 2 * self._setting.rhythm.interval_of(node.role))
            for node in asked
        }
        self._setting.journal.record(
            *(
                AttestationDemanded(
                    at=now,
                    actor=actor,
                    node_id=node.id,
                    node_name=node.name,
                    by=deadlines[node.id],
                )
                for node in asked
            )
        )
        with self._setting.journal.effect() as rows:
            for node in asked:
                rows.nodes.demand(node.id, deadlines[node.id])
        return Demanded(nodes=len(asked), by=rfc3339(max(deadlines.values())))

    def is_open(self, node_id: NodeId) -> bool:
        """Whether somebody waits for this node's attestation; False for an unknown one, too."""
        with self._setting.database.snapshot() as rows:
            node = rows.nodes.get(node_id)
        return node is not None and node.attest_by is not None
