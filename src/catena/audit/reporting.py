"""Making a report: which entries and contents of a log go into one (``audit.report``).

In it are every policy and reference that was accepted until then, and of each node its enrolments,
approvals, revocations, secrets and containers, its newest verdict and its newest certificate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from catena.audit import checkpoint as checkpoints
from catena.audit.entries import (
    CertificateIssued,
    NodeEntry,
    PolicyAccepted,
    ReferenceAccepted,
    Verdict,
)
from catena.audit.evidence import EvidenceMissing, EvidenceStore
from catena.audit.hashes import read_checkpoint
from catena.audit.leaves import Leaves
from catena.audit.reader import LogReader
from catena.audit.report import MAX_ENTRIES, ReportBody, ReportedEntry, named_by
from catena.audit.search import MIN_PREFIX, UnloggedNode
from catena.audit.verify import VerifiedEntry, verify_log
from catena.errors import UsageError
from catena.keys.signer import PublicKey, public_pem


class ReportTooLarge(UsageError):
    """More entries than one report may hold."""

    code = "report-too-large"
    remedy = "Make a report for each node."


def gather(
    log: LogReader,
    key: PublicKey,
    store: EvidenceStore,
    *,
    node: str | None,
    at: datetime,
    origin: str | None = None,
) -> ReportBody:
    """What the log proves about a node (a name, or the first digits of an id), or about all nodes.

    Verifies the whole log. Raises ``UnloggedNode``, ``ReportTooLarge``, ``EvidenceAltered`` and what
    ``verify_log`` raises.
    """
    checkpoint = read_checkpoint(log)
    head = checkpoints.verify(checkpoint, key, origin=origin)
    chosen = _Chosen(node, at)
    verify_log(log, head, key, visit=chosen.visit)
    nodes = chosen.nodes()
    if node is not None and not nodes:
        raise UnloggedNode("no entry names this node", got=ascii(node[:80]))
    numbers = chosen.numbers(nodes)
    if len(numbers) > MAX_ENTRIES:
        raise ReportTooLarge("too many entries", expected=f"{MAX_ENTRIES}", got=f"{len(numbers)}")
    leaves = Leaves(log, head.size)
    verdicts = [chosen.verdicts[one][1] for one in nodes if one in chosen.verdicts]
    contents, missing = _contents(verdicts, store)
    return ReportBody(
        scope="fleet" if node is None else "node",
        at=at,
        nodes=nodes,
        log_key=public_pem(key).decode(),
        checkpoint=checkpoint.decode(),
        entries=tuple(
            ReportedEntry(
                index=number,
                leaf=leaves.leaf(number),
                proof=tuple(digest.hex() for digest in leaves.proof(number)),
            )
            for number in numbers
        ),
        contents=contents,
        missing=missing,
    )


@dataclass(slots=True)
class _Chosen:
    """Walks a log: not frozen, it takes notes."""

    node: str | None
    at: datetime
    accepted: list[int] = field(default_factory=list)
    about: list[tuple[int, str]] = field(default_factory=list)
    verdicts: dict[str, tuple[int, Verdict]] = field(default_factory=dict)
    certificates: dict[str, int] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)

    def visit(self, verified: VerifiedEntry) -> None:
        index, entry = verified.index, verified.entry
        if entry.at > self.at:
            return
        if isinstance(entry, PolicyAccepted | ReferenceAccepted):
            self.accepted.append(index)
        if not isinstance(entry, NodeEntry):
            return
        self.names.setdefault(entry.node_id, set()).add(entry.node_name or "")
        match entry:
            case Verdict():
                self.verdicts[entry.node_id] = (index, entry)
            case CertificateIssued():
                self.certificates[entry.node_id] = index
            case _:
                self.about.append((index, entry.node_id))

    def nodes(self) -> tuple[str, ...]:
        """The ids that are asked for, in the order in which they appeared."""
        if self.node is None:
            return tuple(self.names)
        prefix = self.node if len(self.node) >= MIN_PREFIX else "no prefix"
        return tuple(
            one
            for one, names in self.names.items()
            if (self.node and self.node in names) or one.startswith(prefix)
        )

    def numbers(self, nodes: tuple[str, ...]) -> list[int]:
        """The entries that go into the report, in order."""
        wanted = set(nodes)
        about = [index for index, node in self.about if node in wanted]
        verdicts = [index for node, (index, _) in self.verdicts.items() if node in wanted]
        certificates = [index for node, index in self.certificates.items() if node in wanted]
        return sorted((*self.accepted, *about, *verdicts, *certificates))


def _contents(
    verdicts: list[Verdict], store: EvidenceStore
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """What the verdicts name, and the digests that the store does not have."""
    contents: dict[str, bytes | None] = {}

    def read(sha256: str) -> bytes | None:
        if sha256 not in contents:
            try:
                contents[sha256] = store.read(sha256)
            except EvidenceMissing:
                contents[sha256] = None
        return contents[sha256]

    for verdict in verdicts:
        in_force = read(verdict.references[0]) if verdict.references else None
        for digest in named_by(verdict, in_force):
            read(digest)
    kept = {digest: one for digest, one in contents.items() if one is not None}
    return kept, tuple(sorted(digest for digest, one in contents.items() if one is None))
