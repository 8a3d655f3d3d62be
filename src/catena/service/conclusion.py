"""What an attestation concludes, from what was judged to the rows that change.

A conclusion becomes entries, the entries become durable, and only then does ``take_effect`` change anything
(TRUST, "Attestation", steps 6 and 7).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from catena.audit.entries import KnownBefore, Verdict, abridge
from catena.evidence import Evidence
from catena.formats.nodeapi import (
    NodeToken,
    Reason,
)
from catena.formats.tlogproof import TlogProof
from catena.ids import Sha256Hex
from catena.service.containers import RecordNews
from catena.service.grant import Grant, remember_grants
from catena.service.judgement import (
    Judgement,
    known_to_appraise,
    tpm_of,
)
from catena.service.policies import AppliedPolicy
from catena.service.references import KEPT_APPRAISALS
from catena.service.revocation import Loss
from catena.service.states import (
    Standing,
)
from catena.store.appraisals import Appraisal as StoredAppraisal
from catena.store.database import Transaction
from catena.store.errors import Conflict
from catena.store.nodes import Attested, Node

PRUNE_EVERY = 256


class RacedAttestation(Conflict):
    """Another attestation of the same node was concluded first."""

    code = "raced-attestation"
    remedy = "Attest again with a new nonce."


@dataclass(frozen=True, slots=True)
class Submitted:
    """Evidence with the content of its logs; *untrusted* until appraised."""

    evidence: Evidence
    bare: bytes
    """The evidence without its logs, which ``digest`` is of."""
    digest: Sha256Hex
    contents: Mapping[str, bytes]
    wanted: tuple[Sha256Hex, ...]
    """The logs that the manifest names."""

    def container_record(self, nv_index: int | None) -> bytes:
        """The container record as it was sent for an NV index or a PCR, or nothing."""
        named = (
            log.sha256
            for log in self.evidence.manifest
            if log.kind == "containers" and log.nv_index == nv_index
        )
        return self.contents.get(next(named, ""), b"")


@dataclass(frozen=True, slots=True)
class Judged:
    """A node as it is now, and what was judged about it."""

    node: Node
    judgement: Judgement
    evidence: Submitted
    at: datetime
    policy: AppliedPolicy
    references: Mapping[str, bytes]
    """What was in force by digest, the document that names the rest first."""

    def named(self) -> Mapping[str, bytes]:
        """What the verdict's entry names, by digest, but for the evidence itself."""
        sent, wanted = self.evidence.contents, self.evidence.wanted
        return {
            **{name: content for name, content in sent.items() if name in wanted},
            **self.references,
            self.policy.policy.digest: self.policy.text.encode(),
            sha256_of(self.node.ak_public): self.node.ak_public,
        }


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What was judged, and what follows from it."""

    found: Judged
    standing: Standing
    grant: Grant
    news: tuple[RecordNews, ...]
    tokens: tuple[NodeToken, ...]
    loss: Loss
    """What a node that was trusted until now loses."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A conclusion and its entries: the verdict's, ``ran`` about containers, tokens and what is lost, the grant's."""

    conclusion: Conclusion
    leaves: tuple[bytes, ...]
    ran: int


@dataclass(frozen=True, slots=True)
class Logged:
    """A conclusion whose entries are durable."""

    sealed: Sealed
    recorded: tuple[TlogProof, ...]

    @property
    def index(self) -> int:
        """The verdict's index in the log."""
        return self.recorded[0].index

    def proofs(self) -> tuple[str, ...]:
        """Receipts for the node: of the verdict, and of what it was granted."""
        given = (self.recorded[0], *self.recorded[1 + self.sealed.ran :])
        return tuple(one.encode() for one in given)


def verdict_entry(found: Judged, standing: Standing) -> Verdict:
    """The verdict as the log has it."""
    node, judgement = found.node, found.judgement
    reasons = reasons_of(judgement, standing)
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
            ak_sha256=sha256_of(node.ak_public),
            tpm_kind=known_to_appraise(node).tpm_kind,
            tpm=tpm_of(node),
            role=node.role or "",
            site=node.site or msgspec.UNSET,
            channel=node.channel or msgspec.UNSET,
            attested=node.last_attested,
            reset_count=node.reset_count,
            restart_count=node.restart_count,
            clock=node.clock,
        ),
    )


def reasons_of(judgement: Judgement, standing: Standing) -> tuple[Reason, ...]:
    """Why the verdict is what it is, then why a trusted one admits nothing."""
    withheld = () if standing.withheld is None else (standing.withheld,)
    return (*judgement.reasons, *withheld)


def take_effect(rows: Transaction, logged: Sequence[Logged]) -> None:
    """What the verdicts and grants change. Raises ``RacedAttestation``.

    Nodes in the order of their ids: another replica that wants the same ones waits, and no more.
    """
    attested = sorted((_attested(rows, one) for one in logged), key=lambda one: one.before.id)
    # Compare and swap, so that of two replicas only one concludes.
    if not rows.nodes.attested(attested):
        raise RacedAttestation("the node attested elsewhere, or its state changed, meanwhile")
    for one in logged:
        found = one.sealed.conclusion.found
        standing = one.sealed.conclusion.standing
        rows.nodes.stand(
            found.node, standing.state, standing.why, readmitted=standing.readmitted, now=found.at
        )
        if one.sealed.conclusion.loss:
            one.sealed.conclusion.loss.take(rows, found.node, found.at)
    rows.appraisals.insert_all([_appraisal(one) for one in logged])
    for one in logged:
        for news in one.sealed.conclusion.news:
            news.remember(rows)
    conclusions = [one.sealed.conclusion for one in logged]
    grants = [(one.grant, one.found.node) for one in conclusions]
    remember_grants(rows, grants, conclusions[0].found.at)
    for one in logged:
        if one.index % PRUNE_EVERY == 0:
            found = one.sealed.conclusion.found
            rows.appraisals.prune(found.node.id, keep=KEPT_APPRAISALS)
            rows.certificates.prune(before=found.at)


def _attested(rows: Transaction, logged: Logged) -> Attested:
    """The attestation in the node's row; the boot log is stored if it is proven to be this boot's."""
    found = logged.sealed.conclusion.found
    node, judgement = found.node, found.judgement
    boot_log, trusted_log = node.boot_log, node.trusted_log
    if judgement.proven is not None and judgement.proven.boot_log != boot_log:
        if node.last_verdict == "trusted":
            trusted_log = boot_log
        boot_log = rows.logs.put("tcg2", found.evidence.contents[judgement.proven.boot_log])
    return Attested(
        before=node,
        after=node.clock_triple if judgement.proven is None else judgement.proven.clock,
        at=found.at,
        verdict=judgement.verdict,
        boot_log=boot_log,
        trusted_log=trusted_log,
    )


def _appraisal(logged: Logged) -> StoredAppraisal:
    found = logged.sealed.conclusion.found
    return StoredAppraisal(
        node_id=found.node.id,
        at=found.at,
        verdict=found.judgement.verdict,
        reasons=msgspec.json.encode(found.judgement.reasons),
        facts=found.judgement.facts,
        events=found.judgement.events,
        evidence_sha256=found.evidence.digest,
        logs=found.evidence.wanted,
        entry_index=logged.index,
    )


def evidence_digest(evidence: Evidence) -> Sha256Hex:
    """SHA-256 of the evidence as JSON without log contents: the manifest has their digests."""
    return sha256_of(bare_evidence(evidence))


def bare_evidence(evidence: Evidence) -> bytes:
    """Evidence as JSON without log contents: the bytes that ``evidence_digest`` is of."""
    return msgspec.json.encode(msgspec.structs.replace(evidence, logs={}))


def sha256_of(content: bytes) -> Sha256Hex:
    """The digest under which content is kept and named."""
    return Sha256Hex(hashlib.sha256(content).hexdigest())
