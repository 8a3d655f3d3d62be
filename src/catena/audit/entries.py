"""What the log records: one typed entry per decision, sealed as a signed in-toto Statement.

An entry becomes the predicate ``urn:catena:audit:<kind>:v1`` of a Statement whose subjects are
what was decided about, by digest; the Statement goes into a DSSE envelope signed by the log
key, and the envelope's compact JSON is the leaf. Entries name evidence by digest and never
carry a secret, a key, a token or a log, nor text that a node chose (a denial's message may
quote some, and what a node's container gate recorded names containers: both escaped and cut).

Every entry has ``at`` (RFC 3339, UTC) and ``actor``: the node's id, an admin token's label, or
``server``.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal, get_args

import msgspec

from catena.audit.tiles import MAX_ENTRY
from catena.errors import CatenaError, FormatError
from catena.formats import dsse
from catena.formats.dsse import Statement, Subject
from catena.formats.nodeapi import Hex256, NodeState, Reason
from catena.keys.envelope import open_envelope, seal
from catena.keys.signer import PublicKey, Signer, key_id_of
from catena.measure.escape import escape

MAX_REASONS = 16
MAX_TEXT = 256
MAX_SHOWN = 160
"""Characters of what a node wrote; the digest of an ACI image has 135."""
MAX_NAMED = 3

Word = Annotated[str, msgspec.Meta(max_length=253)]
Words = Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Digests = Annotated[tuple[Hex256, ...], msgspec.Meta(max_length=64)]


class UnloggableEntry(CatenaError):
    """An entry whose fields break their own limits: it is not logged, so nothing is decided."""

    code = "unloggable-entry"
    remedy = "This is a defect in catena: an entry must be abridged before it is logged."


class EntryBase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all entries. Each kind adds ``subjects()``, what was decided about, and
    ``summary()``, one line for a person that may hold text to be escaped on a terminal.
    """

    kind: ClassVar[str]

    at: datetime
    actor: Word

    @classmethod
    def predicate_type(cls) -> str:
        """The predicate's type URI."""
        return f"urn:catena:audit:{cls.kind}:v1"


class NodeEntry(EntryBase, frozen=True, kw_only=True):
    """An entry about one node; ``node_name`` is the server's name for it, if it has one yet."""

    node_id: Hex256
    node_name: Word | None = None

    def subjects(self) -> tuple[Subject, ...]:
        """The node, by the digest of its EK."""
        return (
            Subject(name=f"node:{self.node_name or self.node_id}", digest=_sha256(self.node_id)),
        )


class Enrolment(NodeEntry, frozen=True, kw_only=True):
    """A TPM proved that this AK is its own. ``again``: its EK was known with another AK."""

    kind: ClassVar[str] = "enrolment"

    ak_sha256: Hex256
    ek_root: Word
    mode: Literal["inventory", "approve", "open"]
    state: NodeState
    again: bool = False

    def summary(self) -> str:
        """One line for a person."""
        known = "known EK with a new AK, " if self.again else ""
        return f"enrolled: {known}EK vouched for by {self.ek_root}, {self.state} ({self.mode})"


class Approval(NodeEntry, frozen=True, kw_only=True):
    """A person (or ``open`` mode) gave a node its name and role, or let it back in."""

    kind: ClassVar[str] = "approval"

    ak_sha256: Hex256
    role: Word
    readmitted: bool = False

    def summary(self) -> str:
        """One line for a person."""
        return f"{'readmitted' if self.readmitted else 'approved'} as {self.node_name}, role {self.role}"


class LoggedReason(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One reason of a verdict, abridged."""

    code: Word
    message: Text
    pcr: int | None = None
    digest: Word | None = None

    def __post_init__(self) -> None:
        """Cut the message to what an entry holds."""
        msgspec.structs.force_setattr(self, "message", cut(self.message))


class KnownBefore(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the server knew of a node when it judged it: the rest of what an appraisal needs.

    ``attested`` and the TPM's clock are those of the attestation before, None before the first.
    """

    ak_sha256: Hex256
    tpm_kind: Word
    role: Word = ""
    attested: datetime | None = None
    reset_count: int = 0
    restart_count: int = 0
    clock: int = 0


class InForce(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a server judged by, apart from the policy: a document that verdicts name by its digest.

    ``documents`` are the digests of the active references, in the order of their acceptance;
    ``quirks`` is of the rules that catena ships (``service.shipped``).
    """

    documents: tuple[Hex256, ...]
    security_floor: int
    container_pcr: int
    container_indices: tuple[int, ...]
    quirks: Hex256


class Verdict(NodeEntry, frozen=True, kw_only=True):
    """The appraisal of one piece of evidence, and the state the node is in after it.

    ``references`` names one ``InForce`` document; with ``before`` the verdict follows from what the
    entry names (``service.replay``). Entries that catena wrote earlier lack both.
    """

    kind: ClassVar[str] = "verdict"

    verdict: Literal["trusted", "untrusted"]
    state: NodeState
    reasons: Annotated[tuple[LoggedReason, ...], msgspec.Meta(max_length=MAX_REASONS)] = ()
    reasons_total: int = 0
    evidence_sha256: Hex256
    logs: Digests = ()
    release: Word | None = None
    policy_sha256: Hex256 | None = None
    references: Digests = ()
    before: KnownBefore | msgspec.UnsetType = msgspec.UNSET

    def subjects(self) -> tuple[Subject, ...]:
        """The node and the evidence."""
        evidence = Subject(name="evidence", digest=_sha256(self.evidence_sha256))
        return (*NodeEntry.subjects(self), evidence)

    def summary(self) -> str:
        """One line for a person."""
        codes = ", ".join(dict.fromkeys(reason.code for reason in self.reasons))
        return f"{self.verdict}{f': {codes}' if codes else ''}"


class LoggedContainerEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One record of a node's container gate, abridged; ``record`` is its number in the boot.

    All of it is the gate's word. ``code`` says why a start was refused.
    """

    record: int
    kind: Word
    container: Text = ""
    image: Text = ""
    repository: Text = ""
    publisher: Text = ""
    code: Text = ""

    def __post_init__(self) -> None:
        """Cut what a node wrote to what may be shown."""
        for name in ("container", "image", "repository", "publisher", "code"):
            msgspec.structs.force_setattr(self, name, escape(getattr(self, name), MAX_SHOWN))


class ContainersRecorded(NodeEntry, frozen=True, kw_only=True):
    """Records ``first`` to ``last`` of a node's container record, which a quote has proven.

    The first ``record_size`` bytes of the record have ``record_sha256``; they end at or behind ``last``.
    ``nv_index`` is there if an NV index holds the record: one tenant's of several.
    """

    kind: ClassVar[str] = "containers"

    evidence_sha256: Hex256
    record_sha256: Hex256
    record_size: int
    first: int
    last: int
    started: int
    refused: int
    events: Annotated[tuple[LoggedContainerEvent, ...], msgspec.Meta(max_length=1024)]
    nv_index: int | msgspec.UnsetType = msgspec.UNSET

    def subjects(self) -> tuple[Subject, ...]:
        """The node and its container record."""
        record = Subject(name="container-record", digest=_sha256(self.record_sha256))
        return (*NodeEntry.subjects(self), record)

    def summary(self) -> str:
        """One line for a person."""
        refusals = (
            f"{one.container or 'a container'}: {one.code}"
            for one in self.events
            if one.kind == "deny"
        )
        named = ", ".join(itertools.islice(refusals, MAX_NAMED))
        told = f"{self.started} started, {self.refused} refused"
        which = "" if self.nv_index is msgspec.UNSET else f" of NV index {self.nv_index:#010x}"
        where = f"containers {self.first} to {self.last}{which}"
        return f"{where}: {told}{f' ({named})' if named else ''}"


class CertificateIssued(NodeEntry, frozen=True, kw_only=True):
    """A certificate will be handed to an attested node. ``serial`` is hex."""

    kind: ClassVar[str] = "certificate"

    serial: Word
    certificate_sha256: Hex256
    spki_sha256: Hex256
    not_after: datetime

    def subjects(self) -> tuple[Subject, ...]:
        """The node and the certificate."""
        certificate = Subject(
            name=f"certificate:{self.serial}", digest=_sha256(self.certificate_sha256)
        )
        return (*NodeEntry.subjects(self), certificate)

    def summary(self) -> str:
        """One line for a person."""
        return f"certificate {self.serial} until {self.not_after:%Y-%m-%d %H:%M:%S}Z"


class SecretReleased(NodeEntry, frozen=True, kw_only=True):
    """A secret will be handed to an attested node, sealed to its TPM and boot state."""

    kind: ClassVar[str] = "secret-release"

    secret: Word
    version: int

    def summary(self) -> str:
        """One line for a person."""
        return f"secret {self.secret} version {self.version} released"


class Denial(EntryBase, frozen=True, kw_only=True):
    """A request was refused. ``node_id`` is *claimed*, if there is one."""

    kind: ClassVar[str] = "denial"

    request: Word
    code: Word
    message: Text
    node_id: Hex256 | None = None
    request_sha256: Hex256

    def __post_init__(self) -> None:
        """Cut the message: it quotes errors, whose length is not ours to promise."""
        msgspec.structs.force_setattr(self, "message", cut(self.message))

    def subjects(self) -> tuple[Subject, ...]:
        """The request, and the node it claims to come from."""
        request = Subject(name=f"request:{self.request}", digest=_sha256(self.request_sha256))
        if self.node_id is None:
            return (request,)
        return (request, Subject(name=f"claimed-node:{self.node_id}", digest=_sha256(self.node_id)))

    def summary(self) -> str:
        """One line for a person."""
        claimed = f" (claimed to be {self.node_id[:12]})" if self.node_id else ""
        return f"{self.request} denied: {self.code}: {self.message}{claimed}"


class Revocation(NodeEntry, frozen=True, kw_only=True):
    """A person took a node's trust away; what it held is listed for rotation."""

    kind: ClassVar[str] = "revocation"

    reason: Text
    certificates: Words = ()
    secrets: Words = ()

    def __post_init__(self) -> None:
        """Cut the reason to what an entry holds."""
        msgspec.structs.force_setattr(self, "reason", cut(self.reason))

    def summary(self) -> str:
        """One line for a person."""
        return f"revoked: {self.reason}; {len(self.secrets)} secrets to rotate"


class ReferenceAccepted(EntryBase, frozen=True, kw_only=True):
    """A reference document counts from now on, or (``active`` false) no longer."""

    kind: ClassVar[str] = "reference"

    name: Word
    type: Word
    version: Word
    document_sha256: Hex256
    active: bool = True

    def subjects(self) -> tuple[Subject, ...]:
        """The document."""
        return (Subject(name=f"{self.type}:{self.name}", digest=_sha256(self.document_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        verb = "accepted" if self.active else "withdrawn"
        return f"{self.type} {self.name} {self.version} {verb}"


class PolicyAccepted(EntryBase, frozen=True, kw_only=True):
    """A policy counts from now on. ``policy_sha256`` is of its text, as verdicts name it."""

    kind: ClassVar[str] = "policy"

    name: Word
    version: int
    policy_sha256: Hex256
    document_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The policy's text."""
        return (Subject(name=f"policy:{self.name}", digest=_sha256(self.policy_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        return f"policy {self.name} version {self.version} applied"


class SecretChanged(EntryBase, frozen=True, kw_only=True):
    """A secret got a new version, or was removed. The digest is of the stored ciphertext."""

    kind: ClassVar[str] = "secret-change"

    action: Literal["put", "removed"]
    secret: Word
    version: int
    roles: Words = ()
    ciphertext_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The secret's stored ciphertext."""
        return (Subject(name=f"secret:{self.secret}", digest=_sha256(self.ciphertext_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        return f"secret {self.secret} version {self.version} {self.action}"


class AdminToken(EntryBase, frozen=True, kw_only=True):
    """An admin token was made or withdrawn; ``token_sha256`` is what the server stores of it."""

    kind: ClassVar[str] = "admin-token"

    action: Literal["created", "removed"]
    label: Word
    role: Word
    token_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The token, by its hash."""
        return (Subject(name=f"token:{self.label}", digest=_sha256(self.token_sha256)),)

    def summary(self) -> str:
        """One line for a person."""
        return f"admin token {self.label} ({self.role}) {self.action}"


class TokenUse(EntryBase, frozen=True, kw_only=True):
    """Base: the first use of an admin token within a period (``service.uses``)."""

    label: Word
    role: Word
    token_sha256: Hex256

    def subjects(self) -> tuple[Subject, ...]:
        """The token, by its hash."""
        return (Subject(name=f"token:{self.label}", digest=_sha256(self.token_sha256)),)


class AdminSignIn(TokenUse, frozen=True, kw_only=True):
    """Somebody uses the admin API with this token."""

    kind: ClassVar[str] = "admin-sign-in"

    def summary(self) -> str:
        """One line for a person."""
        return f"{self.label} ({self.role}) signed in"


class LogRead(TokenUse, frozen=True, kw_only=True):
    """Somebody reads this log through the server with this token."""

    kind: ClassVar[str] = "log-read"

    def summary(self) -> str:
        """One line for a person."""
        return f"{self.label} ({self.role}) reads the log"


Entry = (
    Enrolment
    | Approval
    | Verdict
    | ContainersRecorded
    | CertificateIssued
    | SecretReleased
    | Denial
    | Revocation
    | ReferenceAccepted
    | PolicyAccepted
    | SecretChanged
    | AdminToken
    | AdminSignIn
    | LogRead
)
KINDS: dict[str, type[Entry]] = {kind.predicate_type(): kind for kind in get_args(Entry)}
_DECODERS = {uri: msgspec.json.Decoder(kind) for uri, kind in KINDS.items()}


def abridge(reasons: Sequence[Reason]) -> tuple[LoggedReason, ...]:
    """The first reasons of a verdict, cut to what an entry may hold.

    Give ``Verdict.reasons_total`` the full count; the full list is in the database.
    """
    return tuple(
        LoggedReason(
            code=reason.code,
            message=reason.message,
            pcr=reason.pcr,
            digest=reason.digest,
        )
        for reason in reasons[:MAX_REASONS]
    )


def cut(text: str) -> str:
    """Text cut to what an entry's text field may hold."""
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def seal_entry(signer: Signer, entry: Entry) -> bytes:
    """The leaf for an entry. Raises ``UnloggableEntry`` rather than log what cannot be read."""
    uri = entry.predicate_type()
    predicate = msgspec.json.encode(entry)
    try:
        if _DECODERS[uri].decode(predicate) != entry or entry.at.utcoffset() != UTC.utcoffset(None):
            raise UnloggableEntry("entry does not survive its own encoding", got=entry.kind)
    except msgspec.ValidationError as error:
        raise UnloggableEntry(f"entry breaks its limits: {error}", got=entry.kind) from error
    statement = Statement(
        subject=entry.subjects(), predicate_type=uri, predicate=msgspec.Raw(predicate)
    )
    leaf = seal(signer, statement).encode()
    if len(leaf) > MAX_ENTRY:
        raise UnloggableEntry(
            "entry is too large", expected=f"at most {MAX_ENTRY} bytes", got=f"{len(leaf)}"
        )
    return leaf


def open_entry(leaf: bytes, key: PublicKey) -> Entry:
    """Verify a leaf's signature and read its entry.

    1. The envelope is signed by the log key.
    2. Its payload is a Statement of a known kind, its predicate an entry of that kind.
    3. The subjects are those that this entry has.
    4. The envelope is spelled as ``seal_entry`` spells it, to the last bit.

    Raises ``Refusal`` (1) or ``FormatError`` (2 to 4).
    """
    # 1.
    statement = open_envelope(leaf, (key,))
    # 2.
    decoder = _DECODERS.get(statement.predicate_type)
    if decoder is None:
        raise FormatError("entry is of an unknown kind", got=ascii(statement.predicate_type[:80]))
    try:
        entry = decoder.decode(statement.predicate)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"entry cannot be read: {error}") from error
    # 3.
    if entry.subjects() != statement.subject:
        raise FormatError("the statement's subjects are not those of its entry")
    # 4.
    envelope = dsse.parse(leaf)
    if [one.keyid for one in envelope.signatures] != [key_id_of(key)] or envelope.encode() != leaf:
        raise FormatError("the envelope is not spelled the way the log writes it")
    return entry


def _sha256(digest: str) -> dict[str, str]:
    return {"sha256": digest}
