"""Known nodes, judged again when what vouches for their TPMs changed (ADR 29).

A change of an authority leaves a row behind, in the transaction that makes it effective. Any replica
works it off, one at a time and page by page: a round belongs to the replica that moves its time in
the database, and each page's transaction moves it again, so that one which was overtaken has no effect.
Only nodes below the changed authority are looked at.

What the time alone does refuses who enrols, and takes nothing from a node: neither a revocation list that
nobody renewed nor an expired certificate says anything against a TPM that was judged before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from catena.appraise.endorsement import TrustRoots, authorities_above, endorse
from catena.audit.entries import EndorsementJudged, Entry
from catena.errors import Refusal
from catena.formats.nodeapi import NodeState
from catena.formats.tpm2 import parse_public
from catena.ids import NodeId
from catena.service import states
from catena.service.endorsements import Endorsements
from catena.service.nodes import rfc3339
from catena.service.pseudonyms import SERVER
from catena.service.references import REFRESH
from catena.service.revocation import NOTHING_LOST, Loss, loss_of
from catena.service.setting import Setting
from catena.service.ticket import LIFETIME, Memory
from catena.service.views import ChangedAuthority, RejudgingView
from catena.store.database import Transaction
from catena.store.ekcertificates import KeptCertificates
from catena.store.errors import Conflict, NodeMoved
from catena.store.nodes import Node
from catena.store.rejudgements import Rejudgement

ROUND: Final = "endorsements"
LEASE: Final = timedelta(seconds=10)
"""A replica that has not finished a page in this time has lost the round."""
BATCH: Final = 64
"""Nodes of a page: nobody else decides about those of them that change meanwhile."""
LATE: Final = LIFETIME + 2 * REFRESH
"""So long after a change a node may still appear that was judged before it."""
ATTEMPTS: Final = 3


class RoundLost(Conflict):
    """Another replica took over judging nodes again, because this one took too long."""

    code = "round-lost"
    remedy = "Nothing is to be done: the other replica goes on where this one had been."


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was judged of one node: ``code`` is empty if its TPM is vouched for."""

    node_id: NodeId
    is_news: bool
    """Something else was known when it was read."""
    above: frozenset[str]
    code: str = states.VOUCHED_FOR
    message: str = ""


@dataclass(frozen=True, slots=True)
class _Change:
    """A node of which something else was judged than before, as it was read, and what follows."""

    node: Node
    outcome: _Outcome
    loss: Loss
    state: NodeState
    reason: str
    readmitted: bool

    def entries(self, before: NodeState, at: datetime) -> tuple[Entry, ...]:
        """What the log says of it."""
        node, outcome = self.node, self.outcome
        judged = EndorsementJudged(
            at=at,
            actor=SERVER,
            node_id=node.id,
            node_name=node.name,
            code=outcome.code,
            message=outcome.message,
            before=before,
            state=self.state,
        )
        why = f"not vouched for: {outcome.code}"
        return (judged, *(self.loss.entries(node, why, SERVER, at) if self.loss else ()))

    def take_effect(self, rows: Transaction, at: datetime) -> None:
        """The transaction has compared and swapped the node before."""
        node = self.node
        rows.nodes.stand(node, self.state, self.reason, readmitted=self.readmitted, now=at)
        rows.nodes.endorse(node.id, self.outcome.code)
        if self.loss:
            self.loss.take(rows, node, at)


class Rejudging:
    """The verbs *judge* and *progress*."""

    def __init__(self, setting: Setting, endorsements: Endorsements) -> None:
        self._setting = setting
        self._endorsements = endorsements

    def judge(self) -> int:
        """Work off what is to be judged again: of how many nodes it turned out to be another.

        Raises ``RoundLost``, ``NodeMoved``, ``TamperedEndorsement``, and as ``Journal.record``.
        """
        changed, taken = 0, None
        while (one := self._next()) is not None:
            taken = taken or self._take()
            if taken is None:
                break
            taken, found = self._judge_page(one, taken)
            changed += found
        if taken is not None:
            with self._setting.database.transaction() as rows:  # free for the next change
                rows.rounds.renew(ROUND, taken, taken - LEASE)
        return changed

    def judge_node(self, node_id: NodeId) -> None:
        """Judge one node that has just proven itself, with the certificates that are kept now."""
        with self._setting.database.snapshot() as rows:
            kept = rows.ek_certificates.get(node_id)
        if kept is not None:
            self._settled(self._judged((kept,)), lambda _: None)

    def above(self, memory: Memory) -> frozenset[str]:
        """Whose change concerns a TPM that enrols."""
        return authorities_above(
            memory.ek_certificates or (),
            parse_public(memory.ek_public),
            self._endorsements.roots(),
        )

    def progress(self) -> RejudgingView:
        """Which authorities' nodes are to be judged still, and how many nodes cannot be."""
        with self._setting.database.snapshot() as rows:
            return RejudgingView(
                open=tuple(
                    ChangedAuthority(
                        name=one.title,
                        changed_at=rfc3339(one.changed_at),
                        nodes=rows.ek_certificates.count_under(one.name),
                        judged=one.judged,
                        is_second=one.is_second,
                    )
                    for one in rows.rejudgements.list()
                ),
                unknown=rows.nodes.count_unjudgeable(),
            )

    def _next(self) -> Rejudgement | None:
        with self._setting.database.snapshot() as rows:
            return rows.rejudgements.next(second_before=self._setting.now() - LATE)

    def _take(self) -> datetime | None:
        """When this replica took the round; None if another one has it."""
        now = self._setting.now()
        with self._setting.database.transaction() as rows:
            return now if rows.rounds.take(ROUND, now, not_after=now - LEASE) else None

    def _judge_page(self, one: Rejudgement, taken: datetime) -> tuple[datetime, int]:
        """The next nodes below an authority: the round's new time, and how many changed."""
        since = one.changed_at if one.is_second else None
        with self._setting.database.snapshot() as rows:
            page = rows.ek_certificates.under(one.name, after=one.after, limit=BATCH, since=since)
        now = self._setting.now()

        def go_on(rows: Transaction) -> None:
            if not rows.rounds.renew(ROUND, taken, now):
                raise RoundLost("another server judges the nodes by now")
            if len(page) < BATCH:
                rows.rejudgements.finish(one)
            else:
                rows.rejudgements.advance(one, after=page[-1].node_id, judged=len(page))

        return now, self._settled(self._judged(page), go_on)

    def _judged(self, page: Sequence[KeptCertificates]) -> tuple[_Outcome, ...]:
        """By what is in force now, which is what was in force when the page was read, or newer."""
        roots = self._endorsements.roots_now()
        return tuple(_outcome(one, roots) for one in page)

    def _settled(self, outcomes: Sequence[_Outcome], go_on: Callable[[Transaction], None]) -> int:
        """Log, then act, all or nothing, and ``go_on`` with it: how many nodes changed.

        Raises ``NodeMoved`` if others go on deciding about one of them.
        """
        news = [one.node_id for one in outcomes if one.is_news]
        with self._setting.journal.deciding_all(news):
            for _ in range(ATTEMPTS - 1):
                try:
                    return self._attempt(outcomes, go_on)
                except NodeMoved:
                    continue  # another replica concluded an attestation: take that back, too
            return self._attempt(outcomes, go_on)

    def _attempt(self, outcomes: Sequence[_Outcome], go_on: Callable[[Transaction], None]) -> int:
        setting, ids = self._setting, [one.node_id for one in outcomes]
        now = setting.now()
        with setting.database.snapshot() as rows:
            changes = _changes(rows, outcomes, now)
            placed = rows.ek_certificates.above(ids)
        entries = [
            entry
            for one in changes
            for entry in one.entries(states.shown_state(one.node, now, setting.rhythm)[0], now)
        ]
        if entries:
            setting.journal.record(*entries)
        with setting.journal.effect() if entries else setting.database.transaction() as rows:
            # First all nodes, in the order of their ids, as attestations do: nobody waits in a circle.
            for one in changes:
                rows.nodes.hold(one.node)
            for one in changes:
                one.take_effect(rows, now)
            for outcome in outcomes:
                if outcome.above != placed[outcome.node_id]:
                    rows.ek_certificates.place_under(outcome.node_id, outcome.above)
            go_on(rows)
        return len(changes)


def _outcome(kept: KeptCertificates, roots: TrustRoots) -> _Outcome:
    ek = parse_public(kept.ek_public)
    code, message = states.VOUCHED_FOR, ""
    try:
        endorse(kept.certificates, ek, roots, None)
    except Refusal as refusal:
        code, message = refusal.code, str(refusal)
    above = authorities_above(kept.certificates, ek, roots)
    return _Outcome(kept.node_id, kept.endorsement != code, above, code, message)


def _changes(rows: Transaction, outcomes: Sequence[_Outcome], now: datetime) -> tuple[_Change, ...]:
    """Those nodes of which something else was judged before, by id."""
    nodes = rows.nodes.get_all([one.node_id for one in outcomes])
    changed = [one for one in outcomes if nodes[one.node_id].endorsement != one.code]
    return tuple(
        _change(rows, nodes[one.node_id], one, now)
        for one in sorted(changed, key=lambda one: one.node_id)
    )


def _change(rows: Transaction, node: Node, outcome: _Outcome, now: datetime) -> _Change:
    loss = loss_of(rows, node, now) if outcome.code else NOTHING_LOST
    state, reason, readmitted = states.after_judgement(node, outcome.code)
    return _Change(node, outcome, loss, state, reason, readmitted)
