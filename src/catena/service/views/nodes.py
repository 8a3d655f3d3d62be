"""Nodes: what is known of them, and what is asked about them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from catena.appraise.tpmidentity import TpmIdentity
from catena.formats.inventory import MAX_MACHINES, Machine
from catena.formats.nodeapi import Hex256, NodeState, Reason
from catena.measure.changes import Difference
from catena.service.views.base import Label, LabelKey, NodeLabel, View

Why = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
RevocationCause = Literal["privilege-withdrawn", "key-compromise", "cessation-of-operation"]
"""Why certificates are revoked, as RFC 5280 (section 5.3.1) has it."""


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
    """The root that vouched for its TPM when it enrolled."""
    endorsement: str
    """``good``; or the code of why nobody vouches for its TPM any more; or ``unknown``: it enrolled
    before its certificates were kept, so it cannot be judged again."""
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


class ApprovalRequest(View, frozen=True, kw_only=True):
    """What a person decides about a node.

    ``name`` and ``role`` are for a node that waits for its first approval. ``accept_key`` is
    the SHA-256 of the waiting attestation key that shall replace the present one.
    """

    name: Label | None = None
    role: Label | None = None
    accept_key: Hex256 | None = None


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


class RevocationRequest(View, frozen=True, kw_only=True):
    """Why a node is revoked: for people, who find it in the log, and for the CRL."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    cause: RevocationCause = "privilege-withdrawn"


class LabelsRequest(View, frozen=True, kw_only=True):
    """Labels to set, and keys of labels to remove first."""

    labels: Annotated[tuple[NodeLabel, ...], msgspec.Meta(max_length=32)] = ()
    remove: Annotated[tuple[LabelKey, ...], msgspec.Meta(max_length=32)] = ()
