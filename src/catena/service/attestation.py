"""Attestation: evidence becomes a verdict, and a verdict becomes identity and secrets.

TRUST, "Attestation": step 1 is ``nonce``, steps 5 to 7 are ``attest``, for one node at a time.
Replicas are kept apart by the database: the TPM's clock is advanced by compare-and-swap in the
transaction that lets a verdict take effect.

What costs the same for one as for many is done for many: ``attest_all`` judges each piece of
evidence by itself, then waits for the disk once for all evidence, once for all entries, and once
for all effects, in this order.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from catena.appraise.appraisal import appraise
from catena.appraise.nonce import LIFETIME, RANDOM_SIZE, make_nonce
from catena.appraise.policy import Policy
from catena.appraise.reference import References as AppraisedReferences
from catena.appraise.refusal import is_authenticated
from catena.appraise.verdict import Appraisal
from catena.audit.entries import Entry
from catena.errors import CatenaError, Refusal, Unavailable, UsageError, without_frames
from catena.evidence import Evidence
from catena.formats.nodeapi import (
    AttestResult,
    NodeToken,
    NonceRequest,
    NonceResponse,
)
from catena.ids import NodeId, Sha256Hex
from catena.service.conclusion import (
    Conclusion,
    Judged,
    Logged,
    Sealed,
    Submitted,
    bare_evidence,
    reasons_of,
    sha256_of,
    take_effect,
    verdict_entry,
)
from catena.service.containers import document_of, news_of
from catena.service.denials import Denials
from catena.service.grant import NOTHING, Grants
from catena.service.judgement import (
    Judgement,
    events_json,
    judged,
    known_to_appraise,
    refused,
)
from catena.service.memory import Memory, Remembered
from catena.service.nodes import UnknownNode
from catena.service.policies import AppliedPolicy, Policies
from catena.service.references import References
from catena.service.revocation import loss_by_verdict, verdict_entries
from catena.service.setting import Setting
from catena.service.states import (
    RETIRED,
    RetiredNode,
    after_verdict,
    require_on_the_rolls,
)
from catena.service.stopwatch import Stopwatch
from catena.service.vouching import Found, entries_of
from catena.store.database import Transaction
from catena.store.errors import Conflict
from catena.store.nodes import Node

R = TypeVar("R")


class LogsMissing(UsageError):
    """Evidence names logs that the server does not hold and that were not sent."""

    code = "logs-missing"
    remedy = "Send the same evidence again with the content of these logs."

    def __init__(self, missing: tuple[Sha256Hex, ...]) -> None:
        super().__init__(f"{len(missing)} logs are missing")
        self.missing = missing


@dataclass(frozen=True, slots=True)
class _Asked:
    """What evidence is judged by, and when."""

    before: Remembered | None
    at: datetime
    references: AppraisedReferences
    policy: Policy


@dataclass(frozen=True, slots=True)
class _Standard:
    """What everybody is judged by at one time; ``named`` as in ``Judged.references``."""

    at: datetime
    references: AppraisedReferences
    named: Mapping[str, bytes]
    policy: AppliedPolicy


class Attestation:
    """The verb *attest*."""

    def __init__(
        self,
        setting: Setting,
        denials: Denials,
        references: References,
        policies: Policies,
        grants: Grants,
    ) -> None:
        self._setting = setting
        self._policies = policies
        self._denials = denials
        self._references = references
        self._grants = grants
        self._memory = Memory()

    def nonce(self, request: NonceRequest) -> NonceResponse:
        """Step 1: a nonce for an enrolled node. Raises ``UnknownNode``, ``RetiredNode``."""
        return _only(self.nonces((request,)))

    def nonces(self, requests: Sequence[NonceRequest]) -> tuple[NonceResponse | CatenaError, ...]:
        """Step 1 for several nodes: to each its nonce, or why it has none."""
        ids = [NodeId(request.node_id) for request in requests]
        with self._setting.database.snapshot() as rows:
            states = rows.nodes.states(ids)
        return tuple(
            self._refused(node_id, states.get(node_id))
            if states.get(node_id, RETIRED) == RETIRED
            else self._nonce(node_id)
            for node_id in ids
        )

    def _nonce(self, node_id: NodeId) -> NonceResponse:
        setting = self._setting
        nonce = make_nonce(setting.keys.nonce, node_id, setting.now(), setting.random(RANDOM_SIZE))
        return NonceResponse(nonce=nonce, expires_in=int(LIFETIME.total_seconds()))

    def _refused(self, node_id: NodeId, state: str | None) -> CatenaError:
        digest = Sha256Hex(hashlib.sha256(node_id.encode()).hexdigest())
        try:
            if state is None:
                return self._unknown(node_id, "nonce", digest)
            refusal = RetiredNode("this node was retired")
            self._denials.record("nonce", digest, refusal, node_id)
        except CatenaError as error:
            return error
        return refusal

    def attest(self, evidence: Evidence) -> AttestResult:
        """Steps 5 to 7.

        Raises ``FormatError`` and ``UnauthenticatedRefusal`` for evidence that says nothing
        about the node, ``UnknownNode``, ``RetiredNode``, ``LogsMissing``, ``RacedAttestation``, and whatever
        keeps the log or the database from being written.
        """
        return _only(self.attest_all((evidence,)))

    def attest_all(self, submitted: Sequence[Evidence]) -> tuple[AttestResult | Exception, ...]:
        """Steps 5 to 7 for several pieces of evidence: to each its result, or what ``attest`` raises.

        Of one node the second is decided after the first has taken effect.
        """
        outcomes: dict[int, AttestResult | Exception] = {}
        for turn in _turns(submitted):
            with self._setting.journal.deciding_all(one.node_id for one in turn.values()):
                outcomes |= self._attest_turn(turn)
        return tuple(outcomes[number] for number in range(len(submitted)))

    def _attest_turn(self, turn: Mapping[int, Evidence]) -> dict[int, AttestResult | Exception]:
        """All of it for evidence of as many nodes; what fails for all is everybody's error."""
        watch = Stopwatch(self._setting.observe)
        try:
            outcomes, concluded = self._decide_all(turn)
            watch.lap("judge")
        except CatenaError as error:
            return dict.fromkeys(turn, error)
        except Exception as error:  # noqa: BLE001 - one's failure is not the others'
            if len(turn) == 1:
                return dict.fromkeys(turn, error)
            alone = (self._attest_turn({number: one}) for number, one in turn.items())
            return {number: outcome for one in alone for number, outcome in one.items()}
        try:
            return {**outcomes, **self._conclude_all(concluded, watch)}
        except Exception as error:  # noqa: BLE001 - told to everybody whom it concerns
            return {**outcomes, **dict.fromkeys(concluded, error)}

    def _decide_all(
        self, turn: Mapping[int, Evidence]
    ) -> tuple[dict[int, AttestResult | Exception], dict[int, Sealed]]:
        """Who is refused, and what is concluded about the others; nothing has an effect yet."""
        now, policy = self._setting.now(), self._policies.current()
        references, named = self._references.in_force()
        refused_: dict[int, AttestResult | Exception] = {}
        concluded: dict[int, Sealed] = {}
        # Everything is decided from one consistent state of the database.
        with self._setting.database.snapshot() as rows:
            nodes = rows.nodes.get_all([NodeId(one.node_id) for one in turn.values()])
            standard = _Standard(now, references, named, policy)
            for number, evidence in turn.items():
                outcome = self._decided(rows, nodes, evidence, standard)
                if isinstance(outcome, Sealed):
                    concluded[number] = outcome
                else:
                    refused_[number] = outcome
        return refused_, concluded

    def _decided(
        self,
        rows: Transaction,
        nodes: Mapping[NodeId, Node],
        evidence: Evidence,
        standard: _Standard,
    ) -> Sealed | CatenaError:
        """One conclusion or refusal."""
        try:
            return self._sealed(self._decide(rows, nodes, evidence, standard))
        except Unavailable as error:
            return error  # where it came from is written down
        except CatenaError as error:
            return without_frames(error)

    def _decide(
        self,
        rows: Transaction,
        nodes: Mapping[NodeId, Node],
        evidence: Evidence,
        standard: _Standard,
    ) -> Conclusion:
        """Step 5, and what follows from it."""
        bare, before = bare_evidence(evidence), self._memory.recall(evidence.manifest)
        digest = sha256_of(bare)
        node_id = NodeId(evidence.node_id)
        node = nodes.get(node_id)
        if node is None:
            raise self._unknown(node_id, "attest", digest)
        self._require_on_the_rolls(node, "attest", digest)
        wanted = tuple(Sha256Hex(log.sha256) for log in evidence.manifest)
        contents = _contents(rows, node, evidence, before)
        submitted = Submitted(evidence, bare, digest, contents, wanted)
        known = _Asked(before, standard.at, standard.references, standard.policy.policy)
        judgement = self._judge(node, submitted, known)  # (5)
        return self._standing(
            rows,
            Judged(node, judgement, submitted, standard.at, standard.policy, standard.named),
        )

    def _require_on_the_rolls(self, node: Node, request: str, digest: Sha256Hex) -> None:
        """Raises ``RetiredNode``, which is logged."""
        try:
            require_on_the_rolls(node)
        except RetiredNode as error:
            self._denials.record(request, digest, error, node.id)
            raise

    def _unknown(self, node_id: NodeId, request: str, digest: Sha256Hex) -> UnknownNode:
        """The refusal of an id that no TPM has enrolled with; it is logged."""
        refusal = UnknownNode("this TPM has not enrolled")
        self._denials.record(request, digest, refusal, node_id)
        return refusal

    def _judge(self, node: Node, evidence: Submitted, asked: _Asked) -> Judgement:
        """Step 5. A refusal that anybody could have caused is logged and changes nothing."""
        before = asked.before
        try:
            appraisal = appraise(
                evidence.evidence,
                logs=evidence.contents,
                node=known_to_appraise(node),
                nonce_key=self._setting.keys.nonce,
                references=asked.references,
                policy=asked.policy,
                now=asked.at,
                known=before.boot if before else None,
            )
        except Refusal as refusal:
            if is_authenticated(refusal):
                return refused(refusal)
            self._denials.record("attest", evidence.digest, refusal, node.id)
            raise
        before = self._remembered(appraisal, before)
        return judged(appraisal, before.events, before.containers)

    def _remembered(self, appraisal: Appraisal, before: Remembered | None) -> Remembered:
        """The examined boot as the database keeps it, put together again where it has changed."""
        boot = appraisal.boot
        if before is not None and before.boot is boot:
            return before
        told = before is not None and before.boot.explanation is boot.explanation
        events = before.events if before and told else events_json(appraisal)
        new = Remembered(boot, events, tuple(document_of(one) for _, one in boot.records))
        self._memory.keep(new)
        return new

    def _standing(self, rows: Transaction, found: Judged) -> Conclusion:
        """What follows from the judgement: where the node stands, and what it will receive."""
        node, judgement = found.node, found.judgement
        why = judgement.reasons[0].code if judgement.reasons else ""
        standing = after_verdict(node, trusted=judgement.trusted, why=why)
        grant = NOTHING
        if standing.admitted:
            grant = self._grants.make(rows, node, judgement.proven, found.at)
        news = (
            news_of(rows, node, one, found.evidence.container_record(one.place.nv_index))
            for one in judgement.containers
        )
        tokens = self._tokens(found) if standing.admitted else ()
        told = tuple(one for one in news if one is not None)
        loss = loss_by_verdict(rows, node, standing.state, found.at)
        return Conclusion(found, standing, grant, told, tokens, loss)

    def _tokens(self, found: Judged) -> tuple[NodeToken, ...]:
        """For the audiences that an admitted node asked for, if they may be had here."""
        vouching, wanted = self._setting.vouching, found.evidence.evidence.audiences
        if vouching is None or wanted is msgspec.UNSET:
            return ()
        about = Found(
            found.node,
            found.policy.policy.digest,
            found.evidence.digest,
            found.judgement.release,
        )
        return vouching.tokens(about, wanted, found.at)

    def _sealed(self, conclusion: Conclusion) -> Sealed:
        """A conclusion with its entries for the log: verdict, containers, what is granted."""
        found = conclusion.found
        node, now = found.node, found.at
        ran: list[Entry] = [
            entry
            for one in conclusion.news
            for entry in one.entries(node, now, found.evidence.digest)
        ]
        ran += entries_of(conclusion.tokens, node, now)
        ran += verdict_entries(conclusion.loss, node, conclusion.standing.why, now)
        verdict = verdict_entry(found, conclusion.standing)
        granted = conclusion.grant.entries(node, now)
        leaves = self._setting.journal.sealed((verdict, *ran, *granted))
        return Sealed(conclusion, leaves, len(ran))

    def _conclude_all(
        self, concluded: Mapping[int, Sealed], watch: Stopwatch
    ) -> dict[int, AttestResult | Exception]:
        """Steps 6 and 7: log, then act."""
        if not concluded:
            return {}
        # (6) Durable before any effect, and what entries name before the entries.
        self._keep([one.conclusion.found for one in concluded.values()])
        watch.lap("evidence")
        journal = self._setting.journal
        recorded = iter(journal.append([leaf for one in concluded.values() for leaf in one.leaves]))
        logged = {
            number: Logged(one, tuple(itertools.islice(recorded, len(one.leaves))))
            for number, one in concluded.items()
        }
        watch.lap("log")
        # (7) Effects of each, all or none.
        failed = self._take_effect(logged)
        watch.lap("database")
        return {
            number: failed.get(number) or self._answer(one.sealed.conclusion, one.proofs())
            for number, one in logged.items()
        }

    def _take_effect(self, logged: Mapping[int, Logged]) -> Mapping[int, Exception]:
        """One transaction for all. If one of them cannot be, one for each: the errors of those."""
        try:
            with self._setting.journal.effect() as rows:
                take_effect(rows, tuple(logged.values()))
        except Conflict as error:
            if len(logged) == 1:
                return dict.fromkeys(logged, error)
        else:
            return {}
        failed: dict[int, Exception] = {}
        for number, one in logged.items():
            failed |= self._take_effect({number: one})
        return failed

    def _keep(self, concluded: Sequence[Judged]) -> None:
        """Everything that the verdicts' entries name by digest. Raises ``EvidenceUnwritable``."""
        store = self._setting.evidence
        contents: dict[str, bytes] = {}
        for found in concluded:
            contents |= found.named()
        wanted = {one for found in concluded for one in found.evidence.wanted}
        lacking = [one for one in wanted if one not in contents and not store.has(one)]
        if lacking:
            # A boot log that was examined before is not sent again, nor read until now.
            with self._setting.database.snapshot() as rows:
                held = {one: rows.logs.get(one) for one in lacking}
            contents |= {one: content for one, content in held.items() if content is not None}
        once: dict[str, bytes] = {one.evidence.digest: one.evidence.bare for one in concluded}
        store.keep(contents, once)

    def _answer(self, conclusion: Conclusion, receipts: tuple[str, ...]) -> AttestResult:
        found, standing, grant = conclusion.found, conclusion.standing, conclusion.grant
        return AttestResult(
            verdict=found.judgement.verdict,
            state=standing.state,
            name=found.node.name,
            reasons=reasons_of(found.judgement, standing),
            certificate=grant.pem,
            secrets=grant.secrets,
            receipts=receipts,
            interval=self._setting.rhythm.interval_of(found.node.role),
            poll=self._setting.demand_poll or msgspec.UNSET,
            tokens=conclusion.tokens or msgspec.UNSET,
            bundle=self._setting.authorities.news(found.at) or msgspec.UNSET,
        )


def _contents(
    rows: Transaction, node: Node, evidence: Evidence, before: Remembered | None
) -> Mapping[str, bytes]:
    """The evidence's logs, sent or held. Raises ``LogsMissing``.

    The node's own boot log is held (its row refers to it), and is not read again if it was
    examined in this bank before.
    """
    contents: dict[str, bytes] = dict(evidence.logs)
    known = before is not None and before.boot.bank == evidence.bank
    missing = []
    for log in evidence.manifest:
        sha256 = Sha256Hex(log.sha256)
        if sha256 in contents:
            continue
        if known and before is not None and log == before.boot.entry and sha256 == node.boot_log:
            continue
        held = rows.logs.get(sha256)
        if held is None:
            missing.append(sha256)
        else:
            contents[sha256] = held
    if missing:
        raise LogsMissing(tuple(missing))
    return contents


def _turns(submitted: Sequence[Evidence]) -> Iterator[Mapping[int, Evidence]]:
    """Evidence by its number, in groups that have no node twice."""
    waiting = dict(enumerate(submitted))
    while waiting:
        turn: dict[str, int] = {}
        for number, evidence in waiting.items():
            turn.setdefault(evidence.node_id, number)
        yield {number: waiting.pop(number) for number in turn.values()}


def _only(outcomes: tuple[R | Exception, ...]) -> R:
    """The result of one request, or its error."""
    [outcome] = outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
