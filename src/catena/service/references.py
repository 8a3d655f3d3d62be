"""References: what machines may measure, accepted into the service and kept ready.

Releases, key sets and container policies arrive signed by the enterprise's release key. A firmware capture is
approved by a person and a PCR policy imported by one; both are then signed with the log key, so
that no row of the database counts because it is there: every document is verified each time it
is loaded.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from catena.appraise.capture import capture_firmware
from catena.appraise.reference import References as AppraisedReferences
from catena.appraise.reference import build_references
from catena.audit.entries import InForce, ReferenceAccepted
from catena.errors import FormatError, NotFound, Refusal, Unavailable
from catena.formats import pcrpolicy
from catena.formats.containerpolicy import CONTAINER_POLICY_TYPE, ContainerPolicy
from catena.formats.dsse import Statement, Subject
from catena.formats.references import (
    FIRMWARE_TYPE,
    KEYSET_TYPE,
    PCR_POLICY_TYPE,
    RELEASE_TYPE,
    ExpectedEvent,
    FirmwareCapture,
    KeySet,
    PcrPolicy,
    ReleaseManifest,
    parse_predicate,
)
from catena.ids import HashAlg
from catena.keys.envelope import open_envelope
from catena.service import pages, shipped
from catena.service.nodes import find, rfc3339
from catena.service.pages import Page, PageRequest, ReferenceKey, page_of
from catena.service.setting import Setting
from catena.service.views import (
    CaptureRequest,
    CaptureView,
    PcrPolicyRequest,
    ReferenceDetail,
    ReferenceView,
)
from catena.store.database import Transaction
from catena.store.errors import Conflict
from catena.store.nodes import Node
from catena.store.references import StoredReference

Kind = Literal["release", "keyset", "firmware", "pcr-policy", "container-policy"]
Document = ReleaseManifest | KeySet | FirmwareCapture | PcrPolicy | ContainerPolicy

MAX_NAME = 128
KEPT_APPRAISALS = 64
"""Per node, for people to look at; the audit log keeps every verdict."""

REFRESH = timedelta(seconds=10)
"""How long another replica's change may go unnoticed."""

_TYPES: dict[str, tuple[Kind, type[Document]]] = {
    RELEASE_TYPE: ("release", ReleaseManifest),
    KEYSET_TYPE: ("keyset", KeySet),
    FIRMWARE_TYPE: ("firmware", FirmwareCapture),
    PCR_POLICY_TYPE: ("pcr-policy", PcrPolicy),
    CONTAINER_POLICY_TYPE: ("container-policy", ContainerPolicy),
}
_SEALED = ("firmware", "pcr-policy")
"""Kinds that a person vouches for; they may be signed by the log key."""


class UnknownReferenceKind(FormatError):
    """A signed statement that is no reference document."""

    code = "unknown-reference-kind"
    remedy = "Import a release manifest, a key set, a container policy or a PCR policy."


class BadReferenceName(FormatError):
    """A document whose name or version cannot be logged, listed or typed."""

    code = "bad-reference-name"
    remedy = "Publish the document with a short name and version of printable ASCII characters."


class TamperedReference(Unavailable):
    """A stored document that no accepted key signed: nothing is judged against such a set."""

    code = "tampered-reference"
    remedy = "Somebody changed the database, or a release key was removed from server.toml."


class ReferenceTaken(Conflict):
    """Another document with the same kind, name and version."""

    code = "reference-taken"
    remedy = "A published version never changes; publish a new version."


class NoSuchReference(NotFound):
    """A reference that does not exist."""

    code = "no-such-reference"
    remedy = "`catena reference list` shows all references."


class NoBootLog(NotFound):
    """A node whose boot log the server does not hold."""

    code = "no-boot-log"
    remedy = "Start the agent on the machine and wait for its first attestation."


class BootLogMoved(Conflict):
    """The node has booted again since the person looked."""

    code = "boot-log-moved"
    remedy = "Look at the new boot log and capture again."


@dataclass(slots=True)
class _Ready:
    """The active references, prepared; None until loaded."""

    references: AppraisedReferences | None = None
    named: Mapping[str, bytes] = field(default_factory=dict)
    loaded: datetime | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)  # guards the two above


class References:
    """The verbs *import*, *capture*, *list* and *show*, and the active set for appraisal."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._ready = _Ready()

    def active(self) -> AppraisedReferences:
        """Every active document, verified and prepared for appraisal."""
        return self.in_force()[0]

    def in_force(self) -> tuple[AppraisedReferences, Mapping[str, bytes]]:
        """The active documents prepared, and by digest, the ``InForce`` that names them first."""
        now, ready = self._setting.now(), self._ready
        with ready.lock:
            stale = ready.loaded is None or not ready.loaded <= now < ready.loaded + REFRESH
            if ready.references is None or stale:
                loaded, ready.named = self._load()
                # The same object while nothing changed: what was examined against it still holds.
                ready.references = ready.references if loaded == ready.references else loaded
                ready.loaded = now
            return ready.references, ready.named

    def what_if(
        self, envelopes: Sequence[bytes], without: Sequence[str], floor: int | None
    ) -> AppraisedReferences:
        """The active set with more documents, or fewer, or another floor; nothing is accepted.

        Raises ``FormatError``, the refusals of ``keys.envelope``, and ``NoSuchReference`` for a
        name that is not active.
        """
        with self._setting.database.snapshot() as rows:
            stored = rows.references.list(active_only=True)
        known = {name for row in stored for name in _names(row)}
        unknown = sorted(set(without) - known)
        if unknown:
            raise NoSuchReference("there is no such reference", got=ascii(unknown[0][:80]))
        documents = [self._open(row) for row in stored if not _names(row) & set(without)]
        keys = self._setting.release_keys
        documents += [read_reference(open_envelope(one, keys))[1] for one in envelopes]
        return self._built(documents, floor)

    def accept(self, envelope: bytes, actor: str) -> ReferenceView:
        """Import a document signed by a release key.

        Raises ``FormatError``, ``ReferenceTaken``, or the refusals of ``keys.envelope``.
        """
        kind, document = read_reference(open_envelope(envelope, self._setting.release_keys))
        return self._keep(kind, document, envelope, actor)

    def preview(self, name: str) -> CaptureView:
        """What ``capture`` would accept. Raises ``UnknownNode``, ``NoBootLog``."""
        with self._setting.database.snapshot() as rows:
            node = find(rows, name)
            log, banks = _boot_log(rows, node), _proven_banks(rows, node)
        document = capture_firmware(log, banks, name="preview", version="0", node=node.id)
        return CaptureView(
            node=node.id,
            name=node.name,
            boot_log=document.boot_log_sha256,
            events=document.events,
        )

    def capture(self, request: CaptureRequest, actor: str) -> ReferenceView:
        """Accept the firmware part of a node's boot log, which a person has looked at.

        Raises ``UnknownNode``, ``NoBootLog``, ``BootLogMoved`` or ``ReferenceTaken``.
        """
        with self._setting.database.snapshot() as rows:
            node = find(rows, request.node)
            log, banks = _boot_log(rows, node), _proven_banks(rows, node)
        if node.boot_log != request.boot_log:
            raise BootLogMoved(
                "the node has another boot log by now",
                expected=request.boot_log[:16],
                got=(node.boot_log or "")[:16],
            )
        document = capture_firmware(
            log, banks, name=request.name, version=request.boot_log[:12], node=node.id
        )
        subject = Subject(name=node.id, digest={"sha256": document.boot_log_sha256})
        return self._seal("firmware", FIRMWARE_TYPE, subject, document, actor)

    def accept_policy(self, request: PcrPolicyRequest, actor: str) -> ReferenceView:
        """Import a PCR policy, for which the administrator vouches: the file has no signature.

        Raises ``BadReferenceName``, ``ReferenceTaken``, ``UnusableReference`` or the refusals of
        ``formats.pcrpolicy``.
        """
        parsed = pcrpolicy.parse(request.content)
        document = PcrPolicy(
            name=request.name,
            version=request.version,
            source_sha256=hashlib.sha256(request.content).hexdigest(),
            rules=parsed.rules,
            warnings=parsed.warnings,
        )
        _check_names(document)
        subject = Subject(name=request.name, digest={"sha256": document.source_sha256})
        return self._seal("pcr-policy", PCR_POLICY_TYPE, subject, document, actor)

    def page(self, request: PageRequest) -> Page[ReferenceView]:
        """Some of them, and behind the last the rules that catena ships. Raises ``BadCursor``."""
        key = pages.decode(request.cursor, ReferenceKey) or ReferenceKey()
        after = None if key.at is None else (key.at, key.sha256)
        stored: tuple[StoredReference, ...] = ()
        if not key.shipped:
            with self._setting.database.snapshot() as rows:
                stored = rows.references.page(after, request.limit + 1)
        found: list[tuple[ReferenceKey, StoredReference | ReferenceView]] = [
            *((ReferenceKey(row.accepted_at, row.sha256), row) for row in stored),
            *(
                (ReferenceKey(shipped=number), view)
                for number, view in enumerate(shipped.views(), 1)
                if number > key.shipped
            ),
        ]
        page = page_of(found, request.limit, lambda one: one[0])
        views = (
            one if isinstance(one, ReferenceView) else _view(one, self._open(one))
            for _, one in page.items
        )
        return Page(tuple(views), page.cursor)

    def show(self, name: str) -> ReferenceDetail:
        """One reference by name, ``name-version`` or digest prefix; the newest if several.

        Raises ``NoSuchReference``.
        """
        with self._setting.database.snapshot() as rows:
            stored = rows.references.list(active_only=True)
        for row in reversed(stored):
            if name in _names(row) or row.sha256.startswith(name):
                document = self._open(row)
                raw = msgspec.json.decode(msgspec.json.encode(document), type=dict[str, object])
                return ReferenceDetail(
                    reference=_view(row, document), events=_events(document), document=raw
                )
        raise NoSuchReference("there is no such reference")

    def _seal(
        self, kind: Kind, form: str, subject: Subject, document: Document, actor: str
    ) -> ReferenceView:
        statement = Statement(
            subject=(subject,),
            predicate_type=form,
            predicate=msgspec.Raw(msgspec.json.encode(document)),
        )
        return self._keep(kind, document, self._setting.journal.seal(statement), actor)

    def _keep(self, kind: Kind, document: Document, content: bytes, actor: str) -> ReferenceView:
        setting, now = self._setting, self._setting.now()
        digest = hashlib.sha256(content).hexdigest()
        build_references(**{_PLURAL[kind]: [document]})  # type: ignore[arg-type] # one of the five
        with setting.journal.deciding(f"reference:{kind}:{document.name}"):
            with setting.database.snapshot() as rows:
                _require_free(rows, kind, document, digest)
            setting.journal.record(
                ReferenceAccepted(
                    at=now,
                    actor=actor,
                    name=document.name,
                    type=kind,
                    version=str(document.version),
                    document_sha256=digest,
                )
            )
            with setting.journal.effect() as rows:
                row = rows.references.put(
                    name=document.name,
                    kind=kind,
                    version=str(document.version),
                    document=content,
                    at=now,
                )
        with self._ready.lock:
            self._ready.loaded = None
        return _view(row, document)

    def _load(self) -> tuple[AppraisedReferences, Mapping[str, bytes]]:
        with self._setting.database.snapshot() as rows:
            stored = rows.references.list(active_only=True)
        return self._built([self._open(row) for row in stored]), self._named(stored)

    def _named(self, stored: Sequence[StoredReference]) -> Mapping[str, bytes]:
        named = InForce(
            documents=tuple(row.sha256 for row in stored),
            security_floor=self._setting.security_floor,
            container_pcr=self._setting.container_pcr,
            container_indices=self._setting.container_indices,
            quirks=shipped.digest(),
        )
        content = msgspec.json.encode(named)
        return {
            hashlib.sha256(content).hexdigest(): content,
            **{row.sha256: row.document for row in stored},
        }

    def _built(
        self, documents: Sequence[Document], floor: int | None = None
    ) -> AppraisedReferences:
        setting = self._setting
        return prepared(
            documents,
            floor=setting.security_floor if floor is None else floor,
            container_pcr=setting.container_pcr,
            container_indices=setting.container_indices,
        )

    def _open(self, row: StoredReference) -> Document:
        """Verify a stored document again. Only what a person vouched for may be the log key's."""
        keys = self._setting.release_keys
        if row.kind in _SEALED:
            keys = (*keys, *self._setting.sealing_keys)
        try:
            kind, document = read_reference(open_envelope(row.document, keys))
        except (Refusal, FormatError) as error:
            raise TamperedReference("a stored reference does not verify", got=error.code) from error
        if kind != row.kind:
            raise TamperedReference("a stored reference is of another kind", got=kind)
        return document


_PLURAL = {
    "release": "releases",
    "keyset": "keysets",
    "firmware": "firmware",
    "pcr-policy": "pcr_policies",
    "container-policy": "container_policies",
}


def prepared(
    documents: Sequence[Document],
    *,
    floor: int,
    container_pcr: int,
    container_indices: tuple[int, ...],
) -> AppraisedReferences:
    """Documents of any kinds, ready for appraisal. Raises as ``build_references``."""
    return build_references(
        releases=[one for one in documents if isinstance(one, ReleaseManifest)],
        keysets=[one for one in documents if isinstance(one, KeySet)],
        firmware=[one for one in documents if isinstance(one, FirmwareCapture)],
        pcr_policies=[one for one in documents if isinstance(one, PcrPolicy)],
        container_policies=[one for one in documents if isinstance(one, ContainerPolicy)],
        floor=floor,
        container_pcr=container_pcr,
        container_indices=container_indices,
    )


def read_reference(statement: Statement) -> tuple[Kind, Document]:
    """The document in a statement.

    Raises ``UnknownReferenceKind``, ``BadReferenceName``, ``FormatError``.
    """
    known = _TYPES.get(statement.predicate_type)
    if known is None:
        raise UnknownReferenceKind(
            "not a reference document", got=ascii(statement.predicate_type[:80])
        )
    kind, form = known
    document = parse_predicate(statement.predicate, form)
    _check_names(document)
    return kind, document


def _check_names(document: Document) -> None:
    for text in (document.name, str(document.version)):
        if not (1 <= len(text) <= MAX_NAME and text.isascii() and text.isprintable()):
            raise BadReferenceName("name or version of a reference", got=ascii(text[:80]))


def _require_free(rows: Transaction, kind: Kind, document: Document, digest: str) -> None:
    for row in rows.references.list():
        same = (row.kind, row.name, row.version) == (kind, document.name, str(document.version))
        if same and row.sha256 != digest:
            raise ReferenceTaken(
                "another document has this name and version",
                expected=row.sha256[:16],
                got=digest[:16],
            )


def _boot_log(rows: Transaction, node: Node) -> bytes:
    log = None if node.boot_log is None else rows.logs.get(node.boot_log)
    if log is None:
        raise NoBootLog("the server holds no boot log of this node")
    return log


def _proven_banks(rows: Transaction, node: Node) -> tuple[HashAlg, ...]:
    """The banks in which a quote has proven the node's boot log.

    Only a completed appraisal has facts; its bank is the one that was quoted. The log's digests
    in other banks are the node's own word.
    """
    proven = {
        msgspec.json.decode(appraisal.facts, type=_QuotedBank).bank
        for appraisal in rows.appraisals.recent(node.id, limit=KEPT_APPRAISALS)
        if node.boot_log in appraisal.logs
    }
    return tuple(HashAlg(bank) for bank in sorted(bank for bank in proven if bank))


def _names(row: StoredReference) -> set[str]:
    """What a person may call a document; claims by container policies have an @."""
    return {row.name, f"{row.name}-{row.version}", f"{row.name}@{row.version}"}


def _events(document: Document) -> tuple[ExpectedEvent, ...]:
    """What a document expects; a container policy expects nothing, it decides."""
    return () if isinstance(document, ContainerPolicy) else document.events


class _QuotedBank(msgspec.Struct, frozen=True):
    """The one fact that a capture needs of an appraisal."""

    bank: str | None = None


def _view(row: StoredReference, document: Document) -> ReferenceView:
    kind, _ = next(known for known in _TYPES.values() if isinstance(document, known[1]))
    return ReferenceView(
        name=row.name,
        kind=kind,
        version=row.version,
        sha256=row.sha256,
        accepted_at=rfc3339(row.accepted_at),
        events=len(_events(document)),
        warnings=document.warnings if isinstance(document, PcrPolicy) else (),
    )
