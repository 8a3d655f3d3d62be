"""The verb *simulate*: whose verdict would change under another policy or other references.

Every node's newest evidence is judged again twice, as things are and as they would be. Nothing is
stored, logged or changed. Of IMA's log and the container record, what counts is what was kept of them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from catena.appraise.again import Runtime, judge_again, read_again
from catena.appraise.containers import Account
from catena.appraise.facts import Facts
from catena.appraise.measured import MeasuredEvent, Told
from catena.appraise.policy import Policy, compile_policy
from catena.appraise.reference import References as Appraised
from catena.errors import Refusal, Unavailable
from catena.formats.nodeapi import Reason
from catena.ids import HashAlg
from catena.service.containers import kept_of
from catena.service.policies import Policies
from catena.service.references import References
from catena.service.setting import Setting
from catena.service.views import EventView, SimulatedNode, SimulationRequest, SimulationView
from catena.store.appraisals import Appraisal
from catena.store.database import Transaction
from catena.store.nodes import Node

_RUNTIME = "IMA:"
_RULE = "rule:"
_NO_FACTS = b"{}"


class SimulationRunning(Unavailable):
    """One simulation at a time: it must not keep the service from attesting."""

    code = "simulation-running"
    remedy = "Try again when the other simulation is done."


class Simulation:
    """The verb *simulate*."""

    def __init__(self, setting: Setting, references: References, policies: Policies) -> None:
        self._setting = setting
        self._references = references
        self._policies = policies
        self._running = threading.Lock()

    def run(self, request: SimulationRequest) -> SimulationView:
        """Judge every node again.

        Raises ``SimulationRunning``, ``PolicyError``, and what ``References.what_if`` raises.
        """
        if not self._running.acquire(blocking=False):
            raise SimulationRunning("another simulation is running")
        try:
            return self._run(request)
        finally:
            self._running.release()

    def _run(self, request: SimulationRequest) -> SimulationView:
        references, policy = self._references.active(), self._policies.current().policy
        other = policy if request.policy is None else compile_policy(request.policy)
        others = self._references.what_if(request.references, request.without, request.floor)
        with self._setting.database.snapshot() as rows:
            nodes = tuple(
                _simulated(rows, node, (references, policy), (others, other))
                for node in rows.nodes.list()
            )
        return SimulationView(nodes=nodes, changed=sum(one.changed for one in nodes))


def _simulated(
    rows: Transaction, node: Node, before: tuple[Appraised, Policy], after: tuple[Appraised, Policy]
) -> SimulatedNode:
    latest = rows.appraisals.latest(node.id)
    log = None if node.boot_log is None else rows.logs.get(node.boot_log)
    if latest is None or log is None or latest.facts == _NO_FACTS:
        return _unknown(node, latest)
    facts = msgspec.json.decode(latest.facts, type=Facts)
    indices = before[0].container_indices
    kept = kept_of(rows, node.id, indices, facts.container_records)
    if facts.container_records and not kept:
        return _unknown(node, None)
    found = _Found(latest, log, facts, {index: one.account for index, one in kept.items()})
    old, new = _judged(found, before, after)
    return SimulatedNode(
        node=node.id,
        name=node.name,
        before="untrusted" if old else "trusted",
        after="untrusted" if new else "trusted",
        changed=bool(old) != bool(new),
        reasons=new,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database has of a node's newest evidence that was appraised to the end."""

    latest: Appraisal
    log: bytes
    facts: Facts
    containers: Mapping[int | None, Account]


def _judged(found: _Found, *worlds: tuple[Appraised, Policy]) -> list[tuple[Reason, ...]]:
    """The reasons under each pair of references and policy; the log is read once for all.

    Quirk rules come with catena, so they are the same in every world.
    """
    bank = HashAlg(found.facts.bank)
    try:
        firmware = read_again(found.log, bank, worlds[0][0].quirks)
    except Refusal as refusal:
        refused = (Reason(code=refusal.code, message=str(refusal), remedy=refusal.remedy),)
        return [refused for _ in worlds]
    runtime = Runtime(_runtime(found.latest, bank), found.containers)
    return [judge_again(firmware, runtime, found.facts, *world) for world in worlds]


def _unknown(node: Node, latest: Appraisal | None) -> SimulatedNode:
    """Evidence that was refused stays refused, whatever the policy; without any, nothing is known."""
    known = latest is not None and latest.facts == _NO_FACTS
    reasons = () if latest is None else msgspec.json.decode(latest.reasons, type=tuple[Reason, ...])
    return SimulatedNode(
        node=node.id,
        name=node.name,
        before="untrusted" if known else "unknown",
        after="untrusted" if known else "unknown",
        changed=False,
        reasons=reasons if known else (),
    )


def _runtime(latest: Appraisal, bank: HashAlg) -> tuple[MeasuredEvent, ...]:
    """The entries of IMA's log, as the appraisal left them."""
    events = msgspec.json.decode(latest.events, type=tuple[EventView, ...])
    return tuple(
        MeasuredEvent(
            index=one.index,
            pcr=one.pcr,
            digest=one.digest,
            rule=one.claimed_by if one.claimed_by and one.claimed_by.startswith(_RULE) else None,
            extends=True,
            bound=True,
            source=Told(one.type, one.description),
            bank=bank,
        )
        for one in events
        if one.type.startswith(_RUNTIME)
    )
