"""What the trust service tells people: one struct for the admin API and for ``-o json``.

Views carry no secret and nothing unbounded. What only the node said has *untrusted* in its
name.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from catena.appraise.tpmidentity import TpmIdentity
from catena.formats.endorsements import Content, FileName, Source, Type, Vouches
from catena.formats.inventory import MAX_MACHINES, Machine
from catena.formats.nodeapi import Hex256, NodeState, Reason
from catena.formats.references import ExpectedEvent
from catena.measure.changes import Difference
from catena.service.roles import Right, Role

# Patterns end in \Z: $ would also match before a final newline.
Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")]
"""A DNS label: names of nodes, roles, secrets' owners. Safe in a URL, a path and a SPIFFE ID."""

SecretName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?\Z")]
"""A file name below ``/run/catena/secrets``: no slash, never ``.`` or ``..``."""

_KEY = "[a-z0-9]([a-z0-9./-]{0,61}[a-z0-9])?"
LabelKey = Annotated[str, msgspec.Meta(pattern=rf"^{_KEY}\Z")]
NodeLabel = Annotated[
    str, msgspec.Meta(pattern=rf"^{_KEY}=[A-Za-z0-9]([A-Za-z0-9._-]{{0,61}}[A-Za-z0-9])?\Z")
]
"""``key=value``, both as Kubernetes has them."""

MAX_SECRET = 1_000_000


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all views and admin requests: strict, immutable, named fields."""


class NodeView(View, frozen=True, kw_only=True):
    """One node as the service knows it; times are RFC 3339 in UTC."""

    id: str
    name: str | None
    role: str | None
    state: NodeState
    state_reason: str
    mode: str
    """How it came in: ``inventory``, ``approve`` or ``open``."""
    endorsed_by: str
    """The root that vouches for its TPM."""
    tpm: TpmIdentity
    """What its EK certificate says of the TPM."""
    firmware: str | None
    """The TPM's firmware in its last quote that was appraised to the end."""
    untrusted_name_hint: str | None
    enrolled_at: str
    approved_at: str | None
    last_attested: str | None
    last_verdict: str | None
    reasons: tuple[Reason, ...] = ()
    boot_log: str | None = None
    waiting_key: str | None = None
    """SHA-256 of another attestation key that this TPM enrolled and nobody approved."""
    certificate_expires: str | None = None
    state_since: str | None = None
    due_at: str | None = None
    """When its next attestation is due."""
    stale_at: str | None = None
    """When a trusted node is stale, if it is silent until then."""
    attest_by: str | None = None
    """Somebody demanded an attestation by then."""
    site: str | None = None
    channel: str | None = None
    former_name: str | None = None
    """What a retired node was called."""
    labels: tuple[str, ...] = ()


class EventView(View, frozen=True, kw_only=True):
    """One event of a boot: what it measured and which reference accounts for it."""

    index: int
    pcr: int
    type: str
    digest: str
    description: str
    claimed_by: str | None
    why: str | None = None
    """Set when nothing claims the event: why not, and the nearest reference."""


class ContainerEventView(View, frozen=True, kw_only=True):
    """One record of the node's container gate. ``what`` is the command, or why it was refused.

    ``claimed_by`` accounts for it: a container policy, or the rules for gates; else ``why`` says
    why nothing does. A refusal that is accounted for ran nothing.
    """

    record: int
    at: str
    kind: str
    container: str
    sandbox: str
    image: str
    repository: str
    publisher: str
    signature: str
    what: str
    claimed_by: str | None
    why: str | None = None


class ContainersView(View, frozen=True, kw_only=True):
    """What ran in containers since the boot; ``omitted`` records come before ``events``."""

    nv_index: str | None = None
    """The NV index that holds the record, in hexadecimal; None for a PCR."""
    records: int
    started: int
    executed: int
    refused: int
    unverified: int
    gate_restarts: int
    policy: str
    """The accepted policy in force, or empty."""
    omitted: int
    events: tuple[ContainerEventView, ...]


class ExplanationView(View, frozen=True, kw_only=True):
    """A node's last verdict with the boot that led to it, event by event."""

    node: str
    name: str | None
    state: NodeState
    verdict: Literal["trusted", "untrusted"]
    at: str
    reasons: tuple[Reason, ...]
    facts: dict[str, object]
    events: tuple[EventView, ...]
    log_entry: int
    """Index of the verdict in the audit log."""
    since: Difference | None = None
    """What changed since the last trusted boot before this one; None if there was none."""
    containers: ContainersView | None = None
    """What the container gate recorded in a PCR; None if there is no such record."""
    tenants: tuple[ContainersView, ...] = ()
    """What the tenants' container gates recorded, each in its NV index."""


class SecretView(View, frozen=True, kw_only=True):
    """A secret's name, version and audience; never its value."""

    name: str
    version: int
    roles: tuple[str, ...]
    labels: tuple[str, ...]
    created_at: str


class SecretHolder(View, frozen=True, kw_only=True):
    """A node that received a version of a secret; since ``revoked_at`` it is not trusted with it."""

    node: str
    node_name: str | None
    released_at: str
    revoked_at: str | None


class SecretVersion(View, frozen=True, kw_only=True):
    """One version of a secret; ``kek`` is the id of the key it is stored under."""

    version: int
    roles: tuple[str, ...]
    labels: tuple[str, ...]
    created_at: str
    kek: str
    held_by: tuple[SecretHolder, ...]


class SecretDetail(View, frozen=True, kw_only=True):
    """A secret with all its versions, newest first."""

    secret: SecretView
    versions: tuple[SecretVersion, ...]


class SecretReading(View, frozen=True, kw_only=True):
    """Which version somebody wants to read; None: the newest."""

    version: int | None = None


class SecretValue(View, frozen=True, kw_only=True):
    """The value of a secret, for a person who asked for exactly that."""

    name: str
    version: int
    value: bytes

    def __repr__(self) -> str:
        return f"SecretValue({self.name!r}, {self.version})"


class RekeyRequest(View, frozen=True, kw_only=True):
    """The storage key that all secrets shall be under, by its id."""

    kek: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]


class RekeyView(View, frozen=True, kw_only=True):
    """How far it is: ``remaining`` versions are under other keys. Nothing is under those that ``ended``."""

    kek: str
    rekeyed: int
    remaining: int
    ended: tuple[str, ...]


class LabelsView(View, frozen=True, kw_only=True):
    """A node's labels, ``key=value`` each."""

    node: str
    name: str | None
    labels: tuple[str, ...]


class ExposedSecret(View, frozen=True, kw_only=True):
    """A version of a secret that a node holds which is not trusted any more."""

    name: str
    version: int


class RevocationView(View, frozen=True, kw_only=True):
    """What a revocation took back; nothing if the node had been revoked before (``changed`` false)."""

    node: str
    name: str | None
    changed: bool
    certificates: tuple[str, ...]
    """Serial numbers in hex: they are on the CRL."""
    secrets: tuple[ExposedSecret, ...]
    """What to rotate."""


class SecretRotation(View, frozen=True, kw_only=True):
    """A secret that needs a new version, for a node that holds this one was revoked."""

    name: str
    version: int
    node: str
    node_name: str | None
    released_at: str
    since: str
    """When the node was revoked."""


class ReferenceView(View, frozen=True, kw_only=True):
    """One accepted reference document, or a quirk rule, which catena brings (``accepted_at`` None)."""

    name: str
    kind: Literal["release", "keyset", "firmware", "pcr-policy", "container-policy", "quirk"]
    version: str
    sha256: str
    accepted_at: str | None
    events: int
    warnings: tuple[str, ...] = ()
    """What of an imported PCR policy does not hold as it was written."""


class ReferenceDetail(View, frozen=True, kw_only=True):
    """A reference with what it explains; ``document`` is all of it (``formats.references``)."""

    reference: ReferenceView
    events: tuple[ExpectedEvent, ...]
    document: dict[str, object]


class EndorsementView(View, frozen=True, kw_only=True):
    """One accepted root, intermediate or revocation list, with where it came from.

    ``not_after`` of a list is its next update; ``accepted_at`` is None for what server.toml names.
    """

    name: str
    type: Type
    vouches: Vouches | None
    sha256: str
    subject: str
    issuer: str
    not_before: str
    not_after: str
    state: Literal["valid", "not-yet-valid", "expired"]
    tolerances: tuple[str, ...]
    revoked: int | None
    file: str
    source: str
    accepted_at: str | None
    accepted_by: str | None
    """As the database has it; the log's entry about it is the proof."""


class EndorsementDetail(View, frozen=True, kw_only=True):
    """One of them with the certificate or list itself."""

    endorsement: EndorsementView
    pem: str


class EndorsementItem(View, frozen=True, kw_only=True):
    """One certificate or list to import (DER), and the name of the file that it was in."""

    file: FileName
    content: Content


class EndorsementRequest(View, frozen=True, kw_only=True):
    """Certificates and lists to import; roots among them vouch as ``vouches`` says."""

    vouches: Vouches
    source: Source = ""
    items: Annotated[tuple[EndorsementItem, ...], msgspec.Meta(min_length=1, max_length=4096)]


class RefusedEndorsement(View, frozen=True, kw_only=True):
    """One that was not accepted, and why."""

    file: str
    code: str
    message: str
    remedy: str


class EndorsementImport(View, frozen=True, kw_only=True):
    """What became of an import; ``known`` was accepted before."""

    accepted: tuple[EndorsementView, ...]
    known: tuple[EndorsementView, ...]
    refused: tuple[RefusedEndorsement, ...]


class PolicyView(View, frozen=True, kw_only=True):
    """A policy that was applied; ``sha256`` is of its text, as verdicts name it.

    The shipped policy is ``default`` version 0, and nobody applied it.
    """

    name: str
    version: int
    sha256: str
    applied_at: str | None
    applied_by: str | None
    """As the database has it; the log's entry about this version is the proof."""
    text: str


class PolicyHistory(View, frozen=True, kw_only=True):
    """The policy in force, and all that were, newest first."""

    current: PolicyView
    history: tuple[PolicyView, ...]


class SimulationRequest(View, frozen=True, kw_only=True):
    """What if: another policy (text), more references (envelopes), fewer (names), another floor."""

    policy: Annotated[str, msgspec.Meta(max_length=65_536)] | None = None
    references: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=64)] = ()
    without: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    floor: Annotated[int, msgspec.Meta(ge=0)] | None = None


class SimulatedNode(View, frozen=True, kw_only=True):
    """One node's verdict on its newest evidence, before and after the change."""

    node: str
    name: str | None
    before: Literal["trusted", "untrusted", "unknown"]
    after: Literal["trusted", "untrusted", "unknown"]
    changed: bool
    reasons: tuple[Reason, ...] = ()
    """Why ``after`` is not trusted."""


class SimulationView(View, frozen=True, kw_only=True):
    """All nodes; ``changed`` counts those whose verdict would be another."""

    nodes: tuple[SimulatedNode, ...]
    changed: int


class CaptureView(View, frozen=True, kw_only=True):
    """What a person accepts with a capture: the firmware's own measurements."""

    node: str
    name: str | None
    boot_log: str
    events: tuple[ExpectedEvent, ...]


class PcrPolicyRequest(View, frozen=True, kw_only=True):
    """A PCR policy to import: the file as it is, and what to call it, for it has no name."""

    name: str
    version: str
    content: bytes


class ApprovalRequest(View, frozen=True, kw_only=True):
    """What a person decides about a node.

    ``name`` and ``role`` are for a node that waits for its first approval. ``accept_key`` is
    the SHA-256 of the waiting attestation key that shall replace the present one.
    """

    name: Label | None = None
    role: Label | None = None
    accept_key: Hex256 | None = None


TokenLabel = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9._@+-]{0,126}[a-z0-9])?\Z")]
"""Whose token it is, in a path and in the log."""


class TokenRequest(View, frozen=True, kw_only=True):
    """A token to be made. An empty ``scope`` gives all rights of the role."""

    label: TokenLabel
    role: Role
    scope: Annotated[tuple[Right, ...], msgspec.Meta(max_length=32)] = ()
    expires_in: Annotated[int, msgspec.Meta(ge=60, le=2**31)]
    """Seconds."""


class TokenView(View, frozen=True, kw_only=True):
    """A token, never its value; times are RFC 3339 in UTC."""

    id: str
    """The first digits of its hash, as the log has it."""
    label: str
    role: str
    scope: tuple[str, ...]
    login: bool
    """Whether somebody got it by logging in."""
    created_at: str
    expires_at: str | None
    expired: bool
    last_used: str | None
    """To within an hour."""


class NewToken(View, frozen=True, kw_only=True):
    """A token that was just made: ``token`` is shown here and never again."""

    token: str
    view: TokenView


class LoginOffer(View, frozen=True, kw_only=True):
    """Where to log in: the provider, the client's id there, and the nonce that the ID token must have."""

    issuer: str
    client_id: str
    nonce: str


class LoginRequest(View, frozen=True, kw_only=True):
    """An ID token of that provider."""

    id_token: Annotated[str, msgspec.Meta(max_length=16_384)]


Why = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class FarewellRequest(View, frozen=True, kw_only=True):
    """Why a node is retired, or what waits is rejected; it is in the log as it is."""

    reason: Why


class ReplacementRequest(View, frozen=True, kw_only=True):
    """The node, by id, that takes another's place."""

    by: str


class Farewell(View, frozen=True, kw_only=True):
    """The node afterwards, and the secrets that the one which left was given: rotate them."""

    node: NodeView
    secrets: tuple[str, ...] = ()


class DemandRequest(View, frozen=True, kw_only=True):
    """Who is to attest within how many seconds: one node, a role's, or (neither is given) all."""

    node: str | None = None
    role: Label | None = None
    within: Annotated[int, msgspec.Meta(ge=1, le=86_400)] | None = None

    def __post_init__(self) -> None:
        """Refuse two answers to who is meant."""
        if self.node is not None and self.role is not None:
            raise ValueError("`node` and `role` exclude each other")


class Demanded(View, frozen=True, kw_only=True):
    """How many nodes were asked, and by when the last of them is to attest."""

    nodes: int
    by: str


class InventoryRequest(View, frozen=True, kw_only=True):
    """Machines to expect, or with ``dry_run`` only whether they could be."""

    machines: Annotated[tuple[Machine, ...], msgspec.Meta(max_length=MAX_MACHINES)]
    dry_run: bool = False


class Imported(View, frozen=True, kw_only=True):
    """How many machines are expected now that were not, and how many were already."""

    added: int
    unchanged: int
    dry_run: bool


class ExpectedView(View, frozen=True, kw_only=True):
    """An expected machine; ``node`` is the id it enrolled with, None until it does."""

    name: str
    role: str
    site: str | None
    channel: str | None
    ek_sha256: str | None
    ek_issuer: str | None
    ek_serial: str | None
    listed_at: str
    node: str | None


RevocationCause = Literal["privilege-withdrawn", "key-compromise", "cessation-of-operation"]
"""Why certificates are revoked, as RFC 5280 (section 5.3.1) has it."""


class RevocationRequest(View, frozen=True, kw_only=True):
    """Why a node is revoked: for people, who find it in the log, and for the CRL."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    cause: RevocationCause = "privilege-withdrawn"


class LabelsRequest(View, frozen=True, kw_only=True):
    """Labels to set, and keys of labels to remove first."""

    labels: Annotated[tuple[NodeLabel, ...], msgspec.Meta(max_length=32)] = ()
    remove: Annotated[tuple[LabelKey, ...], msgspec.Meta(max_length=32)] = ()


class SecretRequest(View, frozen=True, kw_only=True):
    """A new version of a secret, for nodes with one of the roles and with all of the labels."""

    roles: Annotated[tuple[Label, ...], msgspec.Meta(max_length=32)] = ()
    labels: Annotated[tuple[NodeLabel, ...], msgspec.Meta(max_length=32)] = ()
    value: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_SECRET)]


class CaptureRequest(View, frozen=True, kw_only=True):
    """Accept the firmware part of a node's boot log as a reference.

    ``boot_log`` is the log that the person looked at, so that no newer one slips in.
    """

    node: str
    name: Label
    boot_log: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class RemovalRequest(View, frozen=True, kw_only=True):
    """Which version of a secret to remove; None: all of them."""

    version: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Removed(View, frozen=True, kw_only=True):
    """A secret that is gone, or one version of it, and the nodes that have held it."""

    name: str
    version: int | None = None
    held_by: tuple[str, ...]


class Forgotten(View, frozen=True, kw_only=True):
    """A person whose name is deleted."""

    pseudonym: str


class WitnessReport(View, frozen=True, kw_only=True):
    """One witness of the log: the size it cosigned last here, and why not more."""

    name: str
    url: str
    size: int = 0
    code: str | None = None
    problem: str | None = None


class ExportReport(View, frozen=True, kw_only=True):
    """One receiver of the log's entries: how many it has, of how many, and why not more."""

    target: str
    exported: int = 0
    log_size: int = 0
    code: str | None = None
    problem: str | None = None


class ExportsReport(View, frozen=True, kw_only=True):
    """All receivers of the log's entries."""

    exports: tuple[ExportReport, ...] = ()


class CosigningReport(View, frozen=True, kw_only=True):
    """How far cosignatures lag: ``log_size`` was asked for last, ``cosigned_size`` has a quorum.

    From ``cosigned_at`` on (RFC 3339, UTC, by their own clocks) at least a quorum had seen it.
    """

    quorum: int
    log_size: int
    cosigned_size: int | None
    cosigned_at: str | None
    witnesses: tuple[WitnessReport, ...]
