"""What is acceptable: references, endorsements, policies."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from catena.formats.endorsements import Content, FileName, Source, Type, Vouches
from catena.formats.nodeapi import Reason
from catena.formats.references import ExpectedEvent
from catena.service.views.base import Label, View


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
    nodes: int
    """Known nodes below the authority, or the list's issuer: they are judged again if it is withdrawn."""


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


class ChangedAuthority(View, frozen=True, kw_only=True):
    """An authority whose nodes are being judged again: so many are below it, and judged already.

    ``is_second``: only who enrolled while it changed is still to be looked at.
    """

    name: str
    changed_at: str
    nodes: int
    judged: int
    is_second: bool


class RejudgingView(View, frozen=True, kw_only=True):
    """What is to be judged again still.

    ``unknown`` nodes enrolled with a catena that did not keep their certificates: they are not judged
    before they enrol again.
    """

    open: tuple[ChangedAuthority, ...]
    unknown: int


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


class CaptureRequest(View, frozen=True, kw_only=True):
    """Accept the firmware part of a node's boot log as a reference.

    ``boot_log`` is the log that the person looked at, so that no newer one slips in.
    """

    node: str
    name: Label
    boot_log: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
