"""Attestation: evidence becomes a verdict, and a verdict becomes identity and secrets.

TRUST, "Attestation": step 1 is ``nonce``, steps 5 to 7 are ``attest``, for one node at a time.
Replicas are kept apart by the database: the TPM's clock is advanced by compare-and-swap in the
transaction that lets a verdict take effect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from catena.appraise.appraisal import appraise
from catena.appraise.nonce import LIFETIME, RANDOM_SIZE, make_nonce
from catena.appraise.policy import Policy
from catena.appraise.reference import References as AppraisedReferences
from catena.appraise.refusal import is_authenticated
from catena.appraise.verdict import Appraisal
from catena.audit.entries import KnownBefore, Verdict, abridge
from catena.errors import Refusal, UsageError
from catena.evidence import Evidence
from catena.formats.nodeapi import (
    AttestResult,
    NonceRequest,
    NonceResponse,
    Reason,
)
from catena.ids import NodeId, Sha256Hex
from catena.service.containers import RecordNews, document_of, news_of
from catena.service.denials import Denials
from catena.service.grant import NOTHING, Grant, Grants
from catena.service.judgement import (
    Judgement,
    events_json,
    judged,
    known_to_appraise,
    refused,
    tpm_of,
)
from catena.service.memory import Memory, Remembered
from catena.service.nodes import UnknownNode, known
from catena.service.policies import AppliedPolicy, Policies
from catena.service.references import KEPT_APPRAISALS, References
from catena.service.setting import Setting
from catena.service.states import Standing, after_verdict
from catena.store.appraisals import Appraisal as StoredAppraisal
from catena.store.database import Transaction
from catena.store.errors import Conflict
from catena.store.nodes import Node

PRUNE_EVERY = 256


class LogsMissing(UsageError):
    """Evidence names logs that the server does not hold and that were not sent."""

    code = "logs-missing"
    remedy = "Send the same evidence again with the content of these logs."

    def __init__(self, missing: tuple[Sha256Hex, ...]) -> None:
        super().__init__(f"{len(missing)} logs are missing")
        self.missing = missing


class RacedAttestation(Conflict):
    """Another attestation of the same node was concluded first."""

    code = "raced-attestation"
    remedy = "Attest again with a new nonce."


@dataclass(frozen=True, slots=True)
class _Submitted:
    """Evidence with the content of its logs; *untrusted* until appraised."""

    evidence: Evidence
    digest: Sha256Hex
    contents: Mapping[str, bytes]

    @property
    def wanted(self) -> tuple[Sha256Hex, ...]:
        """The logs that the manifest names."""
        return tuple(Sha256Hex(log.sha256) for log in self.evidence.manifest)

    def container_record(self, nv_index: int | None) -> bytes:
        """The container record as it was sent for an NV index or a PCR, or nothing."""
        named = (
            log.sha256
            for log in self.evidence.manifest
            if log.kind == "containers" and log.nv_index == nv_index
        )
        return self.contents.get(next(named, ""), b"")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What evidence is judged by, and when."""

    before: Remembered | None
    at: datetime
    references: AppraisedReferences
    policy: Policy


@dataclass(frozen=True, slots=True)
class _Judged:
    """A node as it is now, and what was judged about it."""

    node: Node
    judgement: Judgement
    evidence: _Submitted
    at: datetime
    policy: AppliedPolicy
    references: Mapping[str, bytes]
    """What was in force by digest, the document that names the rest first."""


@dataclass(frozen=True, slots=True)
class _Conclusion:
    """What was judged, and what follows from it."""

    found: _Judged
    standing: Standing
    grant: Grant
    news: tuple[RecordNews, ...]


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
        """Step 1: a nonce for an enrolled node. Raises ``UnknownNode``."""
        node_id = NodeId(request.node_id)
        digest = Sha256Hex(hashlib.sha256(node_id.encode()).hexdigest())
        with self._setting.database.snapshot() as rows:
            self._known(rows, node_id, "nonce", digest)
        nonce = make_nonce(
            self._setting.keys.nonce,
            node_id,
            self._setting.now(),
            self._setting.random(RANDOM_SIZE),
        )
        return NonceResponse(nonce=nonce, expires_in=int(LIFETIME.total_seconds()))

    def attest(self, evidence: Evidence) -> AttestResult:
        """Steps 5 to 7.

        Raises ``FormatError`` and ``UnauthenticatedRefusal`` for evidence that says nothing
        about the node, ``UnknownNode``, ``LogsMissing``, ``RacedAttestation``, and whatever
        keeps the log or the database from being written.
        """
        now, node_id = self._setting.now(), NodeId(evidence.node_id)
        digest, before = evidence_digest(evidence), self._memory.recall(evidence.manifest)
        policy = self._policies.current()
        with self._setting.journal.deciding(node_id):
            # Everything is decided from one consistent state of the database.
            with self._setting.database.snapshot() as rows:
                node = self._known(rows, node_id, "attest", digest)
                submitted = _Submitted(evidence, digest, _contents(rows, node, evidence, before))
                references, named = self._references.in_force()
                known = _Asked(before, now, references, policy.policy)
                judgement = self._judge(node, submitted, known)  # (5)
                judged_by = _Judged(node, judgement, submitted, now, policy, named)
                found = self._standing(rows, judged_by)
            return self._conclude(found)

    def _known(self, rows: Transaction, node_id: NodeId, request: str, digest: Sha256Hex) -> Node:
        try:
            return known(rows, node_id)
        except UnknownNode as error:
            self._denials.record(request, digest, error, node_id)
            raise

    def _judge(self, node: Node, evidence: _Submitted, asked: _Asked) -> Judgement:
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

    def _standing(self, rows: Transaction, found: _Judged) -> _Conclusion:
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
        return _Conclusion(found, standing, grant, tuple(one for one in news if one is not None))

    def _conclude(self, conclusion: _Conclusion) -> AttestResult:
        """Steps 6 and 7: log, then act."""
        found, grant, news = conclusion.found, conclusion.grant, conclusion.news
        node, now = found.node, found.at
        # (6) Durable before any effect, and what entries name before the entries.
        self._keep(found)
        verdict = _verdict_entry(found, conclusion.standing)
        ran = [entry for one in news for entry in one.entries(node, now, found.evidence.digest)]
        recorded = self._setting.journal.record(verdict, *ran, *grant.entries(node, now))
        # (7) Effects, all or none.
        with self._setting.journal.effect() as rows:
            _advance_clock(rows, node, found.judgement)
            _change_state(rows, node, conclusion.standing)
            _remember(rows, found, recorded[0].index)
            for one in news:
                one.remember(rows)
            grant.remember(rows, node, now)
        given = (recorded[0], *recorded[1 + len(ran) :])
        return self._answer(conclusion, tuple(one.encode() for one in given))

    def _keep(self, found: _Judged) -> None:
        """Everything that the verdict's entry names by digest. Raises ``EvidenceUnwritable``."""
        store, submitted = self._setting.evidence, found.evidence
        contents = dict(submitted.contents)
        lacking = [one for one in submitted.wanted if one not in contents and not store.has(one)]
        if lacking:
            # A boot log that was examined before is not sent again, nor read until now.
            with self._setting.database.snapshot() as rows:
                held = {one: rows.logs.get(one) for one in lacking}
            contents |= {one: content for one, content in held.items() if content is not None}
        store.keep(
            {
                **{name: content for name, content in contents.items() if name in submitted.wanted},
                **found.references,
                found.policy.policy.digest: found.policy.text.encode(),
                _sha256(found.node.ak_public): found.node.ak_public,
                submitted.digest: bare_evidence(submitted.evidence),
            }
        )

    def _answer(self, conclusion: _Conclusion, receipts: tuple[str, ...]) -> AttestResult:
        found, standing, grant = conclusion.found, conclusion.standing, conclusion.grant
        return AttestResult(
            verdict=found.judgement.verdict,
            state=standing.state,
            name=found.node.name,
            reasons=_reasons(found.judgement, standing),
            certificate=grant.pem,
            secrets=grant.secrets,
            receipts=receipts,
            interval=self._setting.interval,
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


def evidence_digest(evidence: Evidence) -> Sha256Hex:
    """SHA-256 of the evidence as JSON without log contents: the manifest has their digests."""
    return _sha256(bare_evidence(evidence))


def bare_evidence(evidence: Evidence) -> bytes:
    """Evidence as JSON without log contents: the bytes that ``evidence_digest`` is of."""
    return msgspec.json.encode(msgspec.structs.replace(evidence, logs={}))


def _sha256(content: bytes) -> Sha256Hex:
    return Sha256Hex(hashlib.sha256(content).hexdigest())


def _verdict_entry(found: _Judged, standing: Standing) -> Verdict:
    node, judgement = found.node, found.judgement
    reasons = _reasons(judgement, standing)
    return Verdict(
        at=found.at,
        actor=node.id,
        node_id=node.id,
        node_name=node.name,
        verdict=judgement.verdict,
        state=standing.state,
        reasons=abridge(reasons),
        reasons_total=len(reasons),
        evidence_sha256=found.evidence.digest,
        logs=found.evidence.wanted,
        release=judgement.release,
        policy_sha256=found.policy.policy.digest,
        references=(next(iter(found.references)),),
        before=KnownBefore(
            ak_sha256=_sha256(node.ak_public),
            tpm_kind=known_to_appraise(node).tpm_kind,
            tpm=tpm_of(node),
            role=node.role or "",
            attested=node.last_attested,
            reset_count=node.reset_count,
            restart_count=node.restart_count,
            clock=node.clock,
        ),
    )


def _reasons(judgement: Judgement, standing: Standing) -> tuple[Reason, ...]:
    """Why the verdict is what it is, then why a trusted one admits nothing."""
    withheld = () if standing.withheld is None else (standing.withheld,)
    return (*judgement.reasons, *withheld)


def _advance_clock(rows: Transaction, node: Node, judgement: Judgement) -> None:
    """Compare and swap, so that of two replicas only one concludes."""
    new = node.clock_triple if judgement.proven is None else judgement.proven.clock
    if not rows.nodes.advance_clock(node.id, node.clock_triple, new):
        raise RacedAttestation("another replica concluded an attestation of this node first")


def _change_state(rows: Transaction, node: Node, standing: Standing) -> None:
    """Most attestations change nothing here, and are spared the write."""
    if (node.state, node.state_reason, node.readmitted) != (
        standing.state,
        standing.why,
        standing.readmitted,
    ):
        rows.nodes.set_state(node.id, standing.state, standing.why, readmitted=standing.readmitted)


def _remember(rows: Transaction, found: _Judged, entry: int) -> None:
    """The appraisal, and the boot log if it is proven to be this boot's."""
    node, judgement, evidence = found.node, found.judgement, found.evidence
    boot_log, trusted_log = node.boot_log, node.trusted_log
    if judgement.proven is not None and judgement.proven.boot_log != boot_log:
        if node.last_verdict == "trusted":
            trusted_log = boot_log
        boot_log = rows.logs.put("tcg2", evidence.contents[judgement.proven.boot_log])
    rows.nodes.record_attestation(
        node.id,
        at=found.at,
        verdict=judgement.verdict,
        boot_log=boot_log,
        trusted_log=trusted_log,
    )
    rows.appraisals.insert(
        StoredAppraisal(
            node_id=node.id,
            at=found.at,
            verdict=judgement.verdict,
            reasons=msgspec.json.encode(judgement.reasons),
            facts=judgement.facts,
            events=judgement.events,
            evidence_sha256=evidence.digest,
            logs=evidence.wanted,
            entry_index=entry,
        )
    )
    if entry % PRUNE_EVERY == 0:
        rows.appraisals.prune(node.id, keep=KEPT_APPRAISALS)
        rows.certificates.prune(before=found.at)
