"""A report: what a log proves about nodes at a time, in one file that verifies elsewhere.

Two lines. The first is a DSSE envelope around an in-toto Statement ``urn:catena:audit-report:v1``,
signed by whoever made the report; its predicate names the second by SHA-256. The second is a ``ReportBody``
as compact JSON: the log's public key and a checkpoint, entries with their inclusion proofs, and the
contents that verdicts name by digest.

Every entry and content in it holds by the log's key alone. The maker's signature says who chose them:
that nothing relevant was left out is the maker's word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from catena.audit import checkpoint as checkpoints
from catena.audit import merkle
from catena.audit.entries import Entry, InForce, Verdict
from catena.audit.evidence import EvidenceMissing, require_digest
from catena.audit.tiles import MAX_ENTRY
from catena.audit.verify import open_leaf
from catena.errors import FormatError, LogInconsistent, Refusal
from catena.formats import dsse
from catena.formats.dsse import Statement, Subject
from catena.formats.nodeapi import Hex256
from catena.keys.envelope import open_envelope, seal
from catena.keys.signer import PublicKey, Signer, key_id_of, parse_public_key, public_pem

REPORT_TYPE = "urn:catena:audit-report:v1"
MAX_REPORT = 512 * 1024 * 1024
MAX_ENTRIES = 100_000
_MAX_PROOF = 64
_MAX_COMPLAINT = 200


class MalformedReport(FormatError):
    """A file that is no report, or not spelled as one."""

    code = "malformed-report"
    remedy = "Give a file that `catena audit report` wrote, unchanged."


class ReportAltered(LogInconsistent):
    """A report whose parts do not belong together."""

    code = "report-altered"
    remedy = "Obtain the report again from whoever made it."


class ForeignReport(LogInconsistent):
    """A report of another log, or by another maker, than expected."""

    code = "foreign-report"
    remedy = "Check that this is the key of the log, and of the maker, that you meant."


class Maker(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The signed predicate: who made the report, and which body it has."""

    public_key: Annotated[str, msgspec.Meta(max_length=4096)]
    made_at: datetime
    body_sha256: Hex256


class ReportedEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of the log, and its inclusion proof from the leaf up."""

    index: Annotated[int, msgspec.Meta(ge=0)]
    leaf: Annotated[bytes, msgspec.Meta(max_length=MAX_ENTRY)]
    proof: Annotated[tuple[Hex256, ...], msgspec.Meta(max_length=_MAX_PROOF)]


class ReportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The second line. ``nodes`` are ids; ``missing`` are digests whose content was not to be had."""

    scope: Literal["node", "fleet"]
    at: datetime
    nodes: tuple[Hex256, ...]
    log_key: Annotated[str, msgspec.Meta(max_length=4096)]
    checkpoint: str
    entries: Annotated[tuple[ReportedEntry, ...], msgspec.Meta(max_length=MAX_ENTRIES)]
    contents: dict[Hex256, bytes]
    missing: tuple[Hex256, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifiedReport:
    """A report in which everything holds. ``entries`` by index; ``signed_by`` is a key's id."""

    scope: str
    at: datetime
    made_at: datetime
    signed_by: str
    origin: str
    size: int
    root: str
    nodes: tuple[str, ...]
    entries: Mapping[int, Entry]
    contents: Mapping[str, bytes]
    missing: tuple[str, ...]

    def read(self, sha256: str) -> bytes:
        """A content, as ``EvidenceStore.read`` gives it. Raises ``EvidenceMissing``."""
        if sha256 not in self.contents:
            raise EvidenceMissing("the report does not hold this evidence", got=f"sha256 {sha256}")
        return self.contents[sha256]

    def verdicts(self) -> Iterator[tuple[int, Verdict]]:
        """The verdict in force of every node that has one, in the order of the log."""
        newest = {
            entry.node_id: index
            for index, entry in self.entries.items()
            if isinstance(entry, Verdict)
        }
        for index in sorted(newest.values()):
            entry = self.entries[index]
            if isinstance(entry, Verdict):
                yield index, entry


def write_report(body: ReportBody, signer: Signer, made_at: datetime) -> bytes:
    """The file for a body, signed by its maker."""
    return _signed(msgspec.json.encode(body), signer, made_at)


def _signed(content: bytes, signer: Signer, made_at: datetime) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    maker = Maker(
        public_key=public_pem(signer.public_key).decode(), made_at=made_at, body_sha256=digest
    )
    statement = Statement(
        subject=(Subject(name="report", digest={"sha256": digest}),),
        predicate_type=REPORT_TYPE,
        predicate=msgspec.Raw(msgspec.json.encode(maker)),
    )
    return seal(signer, statement).encode() + b"\n" + content + b"\n"


def verify_report(
    content: bytes, key: PublicKey, *, signer: PublicKey | None = None, origin: str | None = None
) -> VerifiedReport:
    """Read a report and verify all of it against the log's ``key``.

    1. It is two lines, in their one spelling, and the first names the second.
    2. Its maker's signature holds; the maker is ``signer``, if one is expected.
    3. It is about the log of this key, and its checkpoint verifies.
    4. Every entry is signed by the log, and the proof leads from it to the checkpoint's root.
    5. Every content has its digest and is named by a verdict in the report; what verdicts name
       is there, or owned up to as missing.
    6. The verdicts are about the report's nodes, and not later than its time.

    Raises ``MalformedReport``, ``ReportAltered``, ``ForeignReport``, ``EvidenceAltered``,
    ``EntryForged``, ``EntryMalformed``, ``ProofMismatch`` and what ``checkpoint.verify`` raises.
    """
    maker, body = _read(content)  # (1), (2)
    if signer is not None and parse_public_key(maker.public_key.encode()) != signer:
        raise ForeignReport("somebody else made the report", expected=key_id_of(signer)[:16])
    if body.log_key != public_pem(key).decode():  # (3)
        raise ForeignReport("the report is about another log", expected=key_id_of(key)[:16])
    head = checkpoints.verify(body.checkpoint.encode(), key, origin=origin)
    entries: dict[int, Entry] = {}
    last = -1
    for one in body.entries:  # (4)
        if one.index <= last:
            raise ReportAltered("entries are not in order", got=f"entry {one.index}")
        proof = [bytes.fromhex(digest) for digest in one.proof]
        leaf_hash = merkle.leaf_hash(one.leaf)
        merkle.verify_inclusion(leaf_hash, one.index, head.size, proof, head.root)
        entries[one.index] = open_leaf(one.leaf, key, one.index)
        last = one.index
    for digest, kept in body.contents.items():  # (5)
        require_digest(kept, digest)
    report = VerifiedReport(
        scope=body.scope,
        at=body.at,
        made_at=maker.made_at,
        signed_by=key_id_of(parse_public_key(maker.public_key.encode())),
        origin=head.origin,
        size=head.size,
        root=head.root.hex(),
        nodes=body.nodes,
        entries=entries,
        contents=body.contents,
        missing=body.missing,
    )
    _check_contents(report)
    _check_scope(report)  # (6)
    return report


def named_by(verdict: Verdict, read_in_force: bytes | None) -> tuple[str, ...]:
    """Every digest that a verdict's entry leads to; ``read_in_force`` is its ``InForce``, if there.

    Raises ``MalformedReport`` for one that is none.
    """
    named = [verdict.evidence_sha256, *verdict.logs, *verdict.references]
    if verdict.policy_sha256 is not None:
        named.append(verdict.policy_sha256)
    if not isinstance(verdict.before, msgspec.UnsetType):
        named.append(verdict.before.ak_sha256)
    if read_in_force is not None:
        try:
            named.extend(msgspec.json.decode(read_in_force, type=InForce).documents)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedReport(
                f"the references in force cannot be read: {_said(error)}"
            ) from error
    return tuple(dict.fromkeys(named))


def _read(content: bytes) -> tuple[Maker, ReportBody]:
    if len(content) > MAX_REPORT:
        raise MalformedReport("the report is too large", expected=f"at most {MAX_REPORT} bytes")
    first, _, rest = content.partition(b"\n")
    if not rest.endswith(b"\n") or rest.count(b"\n") != 1:
        raise MalformedReport("a report has two lines")
    try:
        statement = dsse.parse_statement(dsse.parse(first).payload)
        maker = msgspec.json.decode(statement.predicate, type=Maker)
        key, envelope = parse_public_key(maker.public_key.encode()), dsse.parse(first)
        open_envelope(first, (key,))
        signers = [one.keyid for one in envelope.signatures]
        spelled = (envelope.encode(), signers) == (first, [key_id_of(key)])
        spelled = spelled and statement.predicate_type == REPORT_TYPE
    except Refusal as error:
        raise ReportAltered(f"the maker's signature does not hold: {error}") from error
    except (msgspec.DecodeError, UnicodeError, FormatError) as error:
        raise MalformedReport(f"not a report: {_said(error)}") from error
    if not spelled:
        raise MalformedReport("the report's first line is not spelled as one")
    if hashlib.sha256(rest[:-1]).hexdigest() != maker.body_sha256:
        raise ReportAltered("the report's body is not the one its maker signed")
    try:
        body = msgspec.json.decode(rest[:-1], type=ReportBody)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedReport(f"the report's body cannot be read: {_said(error)}") from error
    if msgspec.json.encode(body) != rest[:-1]:
        raise MalformedReport("the report's body is not spelled as one")
    return maker, body


def _said(error: Exception) -> str:
    """What a decoder complains of: it quotes names that the maker chose, at any length."""
    return ascii(str(error)[:_MAX_COMPLAINT])[1:-1]


def _check_contents(report: VerifiedReport) -> None:
    named: set[str] = set()
    for _, verdict in report.verdicts():
        in_force = verdict.references[0] if verdict.references else ""
        named.update(named_by(verdict, report.contents.get(in_force)))
    strange = sorted({*report.contents, *report.missing} - named)
    lacking = sorted(named - {*report.contents, *report.missing})
    if strange:
        raise ReportAltered("no verdict of the report names this content", got=strange[0])
    if lacking:
        raise ReportAltered("a content that a verdict names was left out", got=lacking[0])


def _check_scope(report: VerifiedReport) -> None:
    for index, entry in report.entries.items():
        if entry.at > report.at:
            raise ReportAltered("an entry is later than the report's time", got=f"entry {index}")
    if {entry.node_id for _, entry in report.verdicts()} - set(report.nodes):
        raise ReportAltered("a verdict is about a node that the report is not about")
