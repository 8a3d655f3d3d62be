"""Looking at nodes: list, show, explain. Reads only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from catena.errors import ExitCode, NotFound
from catena.formats import tcglog
from catena.formats.nodeapi import NodeState, Reason
from catena.ids import HashAlg, NodeId
from catena.measure.changes import Difference
from catena.measure.difference import compare, side_of_log
from catena.service import pages, states
from catena.service.containers import ContainersDocument, kept_of, view_of
from catena.service.judgement import tpm_of
from catena.service.pages import NodeKey, NodesRequest, Page, page_of
from catena.service.setting import Setting
from catena.service.states import shown_state
from catena.service.views import EventView, ExplanationView, NodeView
from catena.store.appraisals import Appraisal
from catena.store.database import Transaction
from catena.store.nodes import Node

_SIDES = ("last trusted boot before", "this boot")


class UnknownNode(NotFound):
    """No TPM with this identity has enrolled."""

    code = "unknown-node"
    exit_code = ExitCode.UNKNOWN_NODE
    remedy = "Enrol the machine (`catena agent join`); `catena node list` shows all nodes."


class NeverAttested(NotFound):
    """A node without any appraisal cannot be explained."""

    code = "never-attested"
    remedy = "Start the agent on the machine and wait for its first attestation."


class Nodes:
    """The verbs *list*, *show* and *explain*."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def page(self, request: NodesRequest) -> Page[NodeView]:
        """Some of them; without retired ones unless these are asked for. Raises ``BadCursor``.

        A page may hold less than its limit: what is stale by now shows only when it is looked at.
        """
        key = pages.decode(request.cursor, NodeKey)
        after = None if key is None else (key.at, NodeId(key.id))
        with self._setting.database.snapshot() as rows:
            found = rows.nodes.page(
                after, request.limit + 1, states=_recorded_as(request), role=request.role
            )
            page = page_of(found, request.limit, lambda node: NodeKey(node.enrolled_at, node.id))
            views = (self.view(rows, node) for node in page.items)
            wanted = (one for one in views if request.state in {None, one.state})
            return Page(tuple(wanted), page.cursor)

    def show(self, name: str) -> NodeView:
        """One node by name or unique id prefix. Raises ``UnknownNode``, ``AmbiguousNode``."""
        with self._setting.database.snapshot() as rows:
            return self.view(rows, find(rows, name))

    def explain(self, name: str) -> ExplanationView:
        """The node's last verdict and its boot, event by event, and what changed in it.

        Raises ``UnknownNode``, ``AmbiguousNode``, ``NeverAttested``.
        """
        with self._setting.database.snapshot() as rows:
            node = find(rows, name)
            latest = rows.appraisals.latest(node.id)
            recorded = {} if latest is None else self._containers(rows, node, latest)
            logs = [rows.logs.get(log) for log in (node.trusted_log, node.boot_log) if log]
        if latest is None:
            raise NeverAttested("the node has not attested yet")
        state, _ = self._state(node)
        facts = msgspec.json.decode(latest.facts, type=dict[str, object])
        return ExplanationView(
            node=node.id,
            name=node.name,
            state=state,
            verdict="trusted" if latest.verdict == "trusted" else "untrusted",
            at=rfc3339(latest.at),
            reasons=msgspec.json.decode(latest.reasons, type=tuple[Reason, ...]),
            facts=facts,
            events=msgspec.json.decode(latest.events, type=tuple[EventView, ...]),
            log_entry=latest.entry_index,
            since=_since(logs, facts),
            containers=view_of(recorded[None]) if None in recorded else None,
            tenants=tuple(
                view_of(one, index) for index, one in recorded.items() if index is not None
            ),
        )

    def _containers(
        self, rows: Transaction, node: Node, latest: Appraisal
    ) -> Mapping[int | None, ContainersDocument]:
        records = msgspec.json.decode(latest.facts, type=dict[str, object]).get("container_records")
        return kept_of(rows, node.id, self._setting.container_indices, records)

    def view(self, rows: Transaction, node: Node) -> NodeView:
        """A node's row as people see it."""
        latest = rows.appraisals.latest(node.id)
        waiting = rows.reenrolments.get(node.id)
        valid = rows.certificates.valid(node.id, now=self._setting.now())
        state, why = self._state(node)
        return NodeView(
            id=node.id,
            name=node.name,
            role=node.role,
            state=state,
            state_reason=why,
            mode=node.mode,
            endorsed_by=node.ek_root,
            endorsement="unknown" if node.endorsement is None else node.endorsement or "good",
            tpm=tpm_of(node),
            firmware=_firmware(latest),
            untrusted_name_hint=node.name_hint,
            enrolled_at=rfc3339(node.enrolled_at),
            approved_at=_moment(node.approved_at),
            last_attested=_moment(node.last_attested),
            last_verdict=node.last_verdict,
            reasons=()
            if latest is None
            else msgspec.json.decode(latest.reasons, type=tuple[Reason, ...]),
            boot_log=node.boot_log,
            waiting_key=None if waiting is None else hashlib.sha256(waiting.ak_public).hexdigest(),
            certificate_expires=rfc3339(valid[-1].not_after) if valid else None,
            state_since=_moment(self._since(node, why)),
            due_at=_moment(self._due(node)),
            stale_at=_moment(states.stale_at(node, self._setting.rhythm)),
            attest_by=_moment(node.attest_by),
            site=node.site,
            channel=node.channel,
            former_name=node.former_name,
            labels=rows.node_labels.of(node.id),
        )

    def _since(self, node: Node, why: str) -> datetime | None:
        """Since when the node is in the state it is shown in."""
        if node.state == states.TRUSTED and why:
            return states.stale_at(node, self._setting.rhythm)
        return node.state_since

    def _due(self, node: Node) -> datetime | None:
        """When the node attests next, if it keeps its interval."""
        if node.last_attested is None or node.state == states.RETIRED:
            return None
        return node.last_attested + timedelta(seconds=self._setting.rhythm.interval_of(node.role))

    def _state(self, node: Node) -> tuple[NodeState, str]:
        return shown_state(node, self._setting.now(), self._setting.rhythm)


def _since(logs: Sequence[bytes | None], facts: Mapping[str, object]) -> Difference | None:
    """The difference of two proven boots; evidence that was refused tells of no boot."""
    bank = facts.get("bank")
    if len(logs) != len(_SIDES) or bank is None:
        return None
    before, after = (
        side_of_log(name, tcglog.parse(log or b""), HashAlg(str(bank)))
        for name, log in zip(_SIDES, logs, strict=True)
    )
    return compare(before, after, HashAlg(str(bank)))


class _QuotedFirmware(msgspec.Struct, frozen=True):
    """The one fact that a node's view needs of an appraisal."""

    tpm_firmware: str | None = None


def _firmware(latest: Appraisal | None) -> str | None:
    if latest is None:
        return None
    return msgspec.json.decode(latest.facts, type=_QuotedFirmware).tpm_firmware


def find(rows: Transaction, name: str) -> Node:
    """The node with this name, or the only one whose id starts so.

    Raises ``UnknownNode`` or ``AmbiguousNode``.
    """
    node = rows.nodes.find(name)
    if node is None:
        raise UnknownNode("no node has this name or id")
    return node


def _recorded_as(request: NodesRequest) -> tuple[str, ...]:
    """The states that a row may have to be shown in the one asked for."""
    if request.state == states.STALE:
        return (states.STALE, states.TRUSTED)
    if request.state is not None:
        return (request.state,)
    return (
        () if request.retired else (states.PENDING, states.TRUSTED, states.UNTRUSTED, states.STALE)
    )


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)


def rfc3339(moment: datetime) -> str:
    """A moment as people and programs read it, in UTC, to the second."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
