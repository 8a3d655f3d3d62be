"""Entries about one node: what it is, what was judged about it, what it was given."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Literal

import msgspec

from catena.appraise.tpmidentity import TpmIdentity
from catena.audit.entries.base import Digests, EntryBase, Text, Word, Words, cut, sha256
from catena.formats.dsse import Subject
from catena.formats.nodeapi import Hex256, NodeState, Reason
from catena.measure.escape import escape

MAX_REASONS = 16
MAX_SHOWN = 160
"""Characters of what a node wrote; the digest of an ACI image has 135."""
MAX_NAMED = 3


class NodeEntry(EntryBase, frozen=True, kw_only=True):
    """An entry about one node; ``node_name`` is the server's name for it, if it has one yet."""

    node_id: Hex256
    node_name: Word | None = None

    def subjects(self) -> tuple[Subject, ...]:
        """The node, by the digest of its EK."""
        return (
            Subject(name=f"node:{self.node_name or self.node_id}", digest=sha256(self.node_id)),
        )


class Enrolment(NodeEntry, frozen=True, kw_only=True):
    """A TPM proved that this AK is its own. ``again``: its EK was known with another AK."""

    kind: ClassVar[str] = "enrolment"

    ak_sha256: Hex256
    ek_root: Word
    mode: Literal["inventory", "approve", "open"]
    state: NodeState
    again: bool = False
    tpm: TpmIdentity | msgspec.UnsetType = msgspec.UNSET
    """Which TPM it is, and what its certificates were forgiven. Earlier entries lack it."""

    def summary(self) -> str:
        """One line for a person."""
        known = "known EK with a new AK, " if self.again else ""
        return f"enrolled: {known}EK vouched for by {self.ek_root}, {self.state} ({self.mode})"


class Approval(NodeEntry, frozen=True, kw_only=True):
    """A person gave a node its name and role, or let it back in; ``server``: the inventory did."""

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
    tpm: TpmIdentity | msgspec.UnsetType = msgspec.UNSET
    role: Word = ""
    attested: datetime | None = None
    reset_count: int = 0
    restart_count: int = 0
    clock: int = 0
    site: Word | msgspec.UnsetType = msgspec.UNSET
    channel: Word | msgspec.UnsetType = msgspec.UNSET


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
        evidence = Subject(name="evidence", digest=sha256(self.evidence_sha256))
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
        record = Subject(name="container-record", digest=sha256(self.record_sha256))
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
            name=f"certificate:{self.serial}", digest=sha256(self.certificate_sha256)
        )
        return (*NodeEntry.subjects(self), certificate)

    def summary(self) -> str:
        """One line for a person."""
        return f"certificate {self.serial} until {self.not_after:%Y-%m-%d %H:%M:%S}Z"


class TokenIssued(NodeEntry, frozen=True, kw_only=True):
    """Tokens for an audience will be handed to an attested node: who it is, and what was found."""

    kind: ClassVar[str] = "identity-token"

    audience: Word
    svid_sha256: Hex256
    result_sha256: Hex256
    not_after: datetime

    def subjects(self) -> tuple[Subject, ...]:
        """The node and the tokens."""
        tokens = (("jwt-svid", self.svid_sha256), ("result", self.result_sha256))
        return (
            *NodeEntry.subjects(self),
            *(Subject(name=f"{kind}:{self.audience}", digest=sha256(one)) for kind, one in tokens),
        )

    def summary(self) -> str:
        """One line for a person."""
        return f"tokens for {self.audience} until {self.not_after:%Y-%m-%d %H:%M:%S}Z"


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
        request = Subject(name=f"request:{self.request}", digest=sha256(self.request_sha256))
        if self.node_id is None:
            return (request,)
        return (request, Subject(name=f"claimed-node:{self.node_id}", digest=sha256(self.node_id)))

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


class NodeLabelled(NodeEntry, frozen=True, kw_only=True):
    """A person gave a node its labels: these and no others. They decide which secrets it gets."""

    kind: ClassVar[str] = "node-labels"

    labels: Words = ()

    def summary(self) -> str:
        """One line for a person."""
        return f"labelled {', '.join(self.labels) or 'nothing'}"


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
