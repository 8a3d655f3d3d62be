"""The verb *replay*: a logged verdict, reached once more from what its entry names.

Offline, from a log, its public key and its evidence store. The log is verified as a whole first; then

1. the node's last verdict before the time asked for is found;
2. its policy, references and attestation key must have been accepted by earlier entries;
3. everything it names is read from the store, each content by its digest;
4. the evidence is appraised with them, at the time of the verdict;
5. verdict, release and reasons must be those of the entry.

All inputs are named by the entry. What is not repeated: the MAC of the nonce, whose key stays with the
server (its age is checked, and the quote covers it), and the quirk rules are those of this catena;
if the server's differ, the result says so. Signatures of policies and references are not checked
again: their digests are in entries that the log's key signed when the server accepted them.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import msgspec

from catena.appraise.appraisal import appraise_recorded
from catena.appraise.clause import PolicyError
from catena.appraise.policy import Policy, compile_policy
from catena.appraise.quote import ClockState
from catena.appraise.reference import References, UnusableReference
from catena.appraise.refusal import is_authenticated
from catena.appraise.tpmidentity import UNKNOWN_TPM
from catena.appraise.verdict import KnownNode
from catena.audit import checkpoint as checkpoints
from catena.audit.entries import (
    Approval,
    Enrolment,
    Entry,
    InForce,
    KnownBefore,
    LoggedReason,
    NodeEntry,
    PolicyAccepted,
    ReferenceAccepted,
    Verdict,
    abridge,
)
from catena.audit.evidence import EvidenceMissing
from catena.audit.hashes import read_checkpoint
from catena.audit.reader import LogReader
from catena.audit.report import VerifiedReport
from catena.audit.verify import LogSummary, VerifiedEntry, verify_log
from catena.errors import CatenaError, FormatError, LogInconsistent, NotFound, Refusal
from catena.evidence import Evidence
from catena.formats import dsse
from catena.formats.nodeapi import Reason
from catena.ids import NodeId
from catena.keys.signer import PublicKey
from catena.service import shipped
from catena.service.judgement import reasons_of
from catena.service.references import prepared, read_reference
from catena.service.states import AWAITING_APPROVAL, AWAITING_READMISSION, REVOKED

_WITHHELD = frozenset({AWAITING_APPROVAL.code, AWAITING_READMISSION.code, REVOKED.code})
_MIN_PREFIX = 4


class NoVerdictThen(NotFound):
    """The log has no verdict about this node from before that time."""

    code = "no-verdict-then"
    remedy = "`catena audit search --node NODE` shows what the log knows of a node, and when."


class VerdictNotRecorded(NotFound):
    """A verdict of an older catena, whose entry does not name all that it was reached from."""

    code = "verdict-not-recorded"
    remedy = "Only verdicts of servers that keep evidence can be replayed."


class NeverAccepted(LogInconsistent):
    """A verdict was reached with something that no earlier entry accepted."""

    code = "never-accepted"
    remedy = "The server judged by something the log does not tell of. Keep both as evidence."


class UnreadableEvidence(LogInconsistent):
    """What an entry names has its digest, and cannot be used for an appraisal."""

    code = "evidence-unreadable"
    remedy = "If a newer catena wrote the log, replay with that version."


class VerdictDiffers(LogInconsistent):
    """The evidence does not lead to the verdict that was logged."""

    code = "verdict-differs"
    remedy = (
        "Replay with the version of catena that judged; if it differs too, do not trust the server."
    )

    def __init__(self, differences: tuple[str, ...]) -> None:
        super().__init__(
            "the logged verdict does not follow from its evidence: " + "; ".join(differences)
        )
        self.differences = differences

    def as_dict(self) -> dict[str, object]:
        """The JSON object of the error, with each difference."""
        return {**super().as_dict(), "differences": self.differences}


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict that came out the same; ``policy`` and ``references`` are digests.

    ``same_quirks`` is false if the server's quirk rules were of another version than ours.
    """

    entry: int
    at: datetime
    node: str
    name: str | None
    verdict: str
    release: str | None
    reasons: tuple[Reason, ...]
    evidence_sha256: str
    policy: str
    references: tuple[str, ...]
    same_quirks: bool
    log_size: int


@dataclass(frozen=True, slots=True)
class FoundVerdict:
    """A verdict in a verified log, with what earlier entries accepted."""

    index: int
    entry: Verdict
    log: LogSummary
    policies: frozenset[str]
    references: frozenset[str]
    keys: frozenset[str]


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that an appraisal takes, read from the store by digest."""

    evidence: Evidence
    logs: dict[str, bytes]
    node: KnownNode
    policy: Policy
    references: References
    in_force: InForce


@dataclass(slots=True)
class _Search:
    """Walks a log: not frozen, it takes notes."""

    node: str
    at: datetime
    index: int = -1
    entry: Verdict | None = None
    accepted: list[tuple[int, str, str]] = field(default_factory=list)

    def visit(self, verified: VerifiedEntry) -> None:
        entry = verified.entry
        match entry:
            case Verdict() if entry.at <= self.at and self._is_asked(entry):
                self.index, self.entry = verified.index, entry
            case _:
                self.note(verified.index, entry)

    def note(self, index: int, entry: Entry) -> None:
        """Remember what an entry accepted."""
        match entry:
            case PolicyAccepted():
                self.accepted.append((index, "policy", entry.policy_sha256))
            case ReferenceAccepted():
                self.accepted.append((index, "reference", entry.document_sha256))
            case Enrolment() | Approval():
                self.accepted.append((index, entry.node_id, entry.ak_sha256))
            case _:
                return

    def found(self, log: LogSummary) -> FoundVerdict:
        """The verdict, with what was accepted before it. Raises ``NoVerdictThen``."""
        if self.entry is None:
            raise NoVerdictThen("no verdict about this node from then", got=ascii(self.node[:80]))
        return FoundVerdict(
            index=self.index,
            entry=self.entry,
            log=log,
            policies=self.before("policy"),
            references=self.before("reference"),
            keys=self.before(self.entry.node_id),
        )

    def _is_asked(self, entry: NodeEntry) -> bool:
        prefix = len(self.node) >= _MIN_PREFIX and entry.node_id.startswith(self.node)
        return prefix or entry.node_name == self.node

    def before(self, what: str) -> frozenset[str]:
        return frozenset(
            digest for index, kind, digest in self.accepted if index < self.index and kind == what
        )


def find_verdict(
    log: LogReader, key: PublicKey, node: str, at: datetime, *, origin: str | None = None
) -> FoundVerdict:
    """The verdict about ``node`` (a name, or the first digits of an id) in force at a time.

    Verifies the whole log. Raises ``NoVerdictThen`` and what ``verify_log`` raises.
    """
    search = _Search(node, at)
    head = checkpoints.verify(read_checkpoint(log), key, origin=origin)
    return search.found(verify_log(log, head, key, visit=search.visit))


class Contents(Protocol):
    """Where contents are read by digest: an ``EvidenceStore``, or a verified report."""

    def read(self, sha256: str) -> bytes:
        """A content that has this digest. Raises ``EvidenceMissing``, ``EvidenceAltered``."""
        ...


def replay_report(report: VerifiedReport) -> tuple[Replay, ...]:
    """Reach every verdict of a verified report again whose evidence is in it, in order.

    One that cannot be replayed (``EvidenceMissing``, ``VerdictNotRecorded``) is left out. Raises as
    ``replay`` otherwise.
    """
    log = LogSummary(origin=report.origin, size=report.size, root=report.root, kinds={})
    replayed, notes = [], _Search("", report.at)
    for number, other in report.entries.items():
        notes.note(number, other)
    for index, entry in report.verdicts():
        search = _Search(entry.node_id, entry.at, index, entry, notes.accepted)
        with contextlib.suppress(EvidenceMissing, VerdictNotRecorded):
            replayed.append(replay(search.found(log), report))
    return tuple(replayed)


def replay(found: FoundVerdict, store: Contents) -> Replay:
    """Reach the verdict again, steps 2 to 5.

    Raises ``VerdictNotRecorded``, ``NeverAccepted``, ``EvidenceMissing``, ``EvidenceAltered``,
    ``UnreadableEvidence`` or ``VerdictDiffers``.
    """
    entry = found.entry
    inputs = read_inputs(found, store)
    release, reasons = _appraised(inputs, entry.at)
    differences = tuple(_differences(entry, release, reasons))
    if differences:
        raise VerdictDiffers(differences)
    return Replay(
        entry=found.index,
        at=entry.at,
        node=entry.node_id,
        name=entry.node_name,
        verdict=entry.verdict,
        release=release,
        reasons=reasons,
        evidence_sha256=entry.evidence_sha256,
        policy=inputs.policy.digest,
        references=inputs.in_force.documents,
        same_quirks=inputs.in_force.quirks == shipped.digest(),
        log_size=found.log.size,
    )


def read_inputs(found: FoundVerdict, store: Contents) -> Inputs:
    """Steps 2 and 3. Raises as ``replay``."""
    entry, before = found.entry, found.entry.before
    if isinstance(before, msgspec.UnsetType) or entry.policy_sha256 is None or not entry.references:
        raise VerdictNotRecorded("the entry does not name its inputs", got=f"entry {found.index}")
    try:
        in_force = msgspec.json.decode(store.read(entry.references[0]), type=InForce)
        _check_accepted(found, before, in_force)  # (2)
        evidence = msgspec.json.decode(store.read(entry.evidence_sha256), type=Evidence)  # (3)
        documents = [
            read_reference(dsse.parse_statement(dsse.parse(store.read(one)).payload))[1]
            for one in in_force.documents
        ]
        return Inputs(
            evidence=evidence,
            logs={log: store.read(log) for log in entry.logs},
            node=_known(entry, before, store.read(before.ak_sha256)),
            policy=compile_policy(store.read(entry.policy_sha256).decode()),
            references=prepared(
                documents,
                floor=in_force.security_floor,
                container_pcr=in_force.container_pcr,
                container_indices=in_force.container_indices,
            ),
            in_force=in_force,
        )
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        FormatError,
        PolicyError,
        UnusableReference,
    ) as error:
        raise UnreadableEvidence(f"evidence cannot be used: {error}") from error


def _check_accepted(found: FoundVerdict, before: KnownBefore, in_force: InForce) -> None:
    """Step 2. Until a first policy is applied, a server judges by the one that catena ships."""
    policy = found.entry.policy_sha256
    if found.policies and policy not in found.policies:
        raise NeverAccepted("no earlier entry accepted the policy", got=policy)
    unknown = next((one for one in in_force.documents if one not in found.references), None)
    if unknown is not None:
        raise NeverAccepted("no earlier entry accepted a reference", got=unknown)
    if before.ak_sha256 not in found.keys:
        raise NeverAccepted("no earlier entry enrolled the attestation key", got=before.ak_sha256)


def _known(entry: Verdict, before: KnownBefore, ak_public: bytes) -> KnownNode:
    clock = ClockState(before.reset_count, before.restart_count, before.clock)
    return KnownNode(
        id=NodeId(entry.node_id),
        ak_public=ak_public,
        clock=None if before.attested is None else clock,
        tpm_kind=before.tpm_kind,
        tpm=UNKNOWN_TPM if isinstance(before.tpm, msgspec.UnsetType) else before.tpm,
        attested=before.attested,
        role=before.role,
        site=before.site or "",
        channel=before.channel or "",
    )


def _appraised(inputs: Inputs, at: datetime) -> tuple[str | None, tuple[Reason, ...]]:
    """Step 4, in the shape of ``service.judgement``: release and reasons."""
    try:
        appraisal = appraise_recorded(
            inputs.evidence,
            logs=inputs.logs,
            node=inputs.node,
            references=inputs.references,
            policy=inputs.policy,
            at=at,
        )
    except Refusal as refusal:
        if is_authenticated(refusal):
            return None, reasons_of(refusal)
        raise VerdictDiffers((f"the evidence says nothing about the node: {refusal}",)) from refusal
    except CatenaError as error:
        raise UnreadableEvidence(f"the evidence cannot be appraised: {error}") from error
    return appraisal.release, appraisal.reasons


def _differences(entry: Verdict, release: str | None, reasons: tuple[Reason, ...]) -> list[str]:
    """Step 5. Messages may be worded otherwise; codes, registers and digests may not."""
    found = []
    verdict = "untrusted" if reasons else "trusted"
    if verdict != entry.verdict:
        found.append(f"verdict {entry.verdict} was logged, {verdict} comes out")
    if release != entry.release:
        found.append(f"release {entry.release} was logged, {release} comes out")
    logged, withheld = list(entry.reasons), 0
    if entry.reasons_total == len(reasons) + 1:
        withheld = 1
        if len(logged) == entry.reasons_total and logged.pop().code not in _WITHHELD:
            withheld = 0
    if entry.reasons_total != len(reasons) + withheld:
        found.append(f"{entry.reasons_total} reasons were logged, {len(reasons)} come out")
    for one, other in itertools.zip_longest(logged, abridge(reasons)):
        if _told(one) != _told(other):
            found.append(f"reason {_told(one)} was logged, {_told(other)} comes out")
    return found


def _told(reason: LoggedReason | None) -> str:
    if reason is None:
        return "none"
    where = "" if reason.pcr is None else f" (PCR {reason.pcr})"
    return f"{reason.code}{where}{f' {reason.digest}' if reason.digest else ''}"
