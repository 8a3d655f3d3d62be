"""What the log records: one typed entry per decision, sealed as a signed Statement (``leaf``).

An entry becomes the predicate ``urn:catena:audit:<kind>:v1`` of a Statement whose subjects are
what was decided about, by digest. Entries name evidence by digest and never
carry a secret, a key, a token or a log, nor text that a node chose (a denial's message may
quote some, and what a node's container gate recorded names containers: both escaped and cut).

Every entry has ``at`` (RFC 3339, UTC) and ``actor``: the node's id, ``server``, or a person's
pseudonym (``audit.people``).
"""

from __future__ import annotations

from typing import get_args

from catena.audit.entries.base import (
    MAX_TEXT,
    EntryBase,
    cut,
)
from catena.audit.entries.life import (
    AttestationDemanded,
    EndorsementJudged,
    InventoryChanged,
    KeyRejected,
    Transition,
)
from catena.audit.entries.nodes import (
    MAX_NAMED,
    MAX_REASONS,
    MAX_SHOWN,
    Approval,
    CertificateIssued,
    ContainersRecorded,
    Denial,
    Enrolment,
    InForce,
    KnownBefore,
    LoggedContainerEvent,
    LoggedReason,
    NodeEntry,
    NodeLabelled,
    Revocation,
    SecretReleased,
    TokenIssued,
    Verdict,
    abridge,
)
from catena.audit.entries.server import (
    AdminSignIn,
    AdminToken,
    EndorsementChanged,
    KeyChanged,
    LogContinues,
    LogEnded,
    LogRead,
    PersonForgotten,
    PolicyAccepted,
    ReferenceAccepted,
    SecretChanged,
    SecretRead,
)

__all__ = [
    "KINDS",
    "MAX_NAMED",
    "MAX_REASONS",
    "MAX_SHOWN",
    "MAX_TEXT",
    "AdminSignIn",
    "AdminToken",
    "Approval",
    "AttestationDemanded",
    "CertificateIssued",
    "ContainersRecorded",
    "Denial",
    "EndorsementChanged",
    "EndorsementJudged",
    "Enrolment",
    "Entry",
    "EntryBase",
    "InForce",
    "InventoryChanged",
    "KeyChanged",
    "KeyRejected",
    "KnownBefore",
    "LogContinues",
    "LogEnded",
    "LogRead",
    "LoggedContainerEvent",
    "LoggedReason",
    "NodeEntry",
    "NodeLabelled",
    "PersonForgotten",
    "PolicyAccepted",
    "ReferenceAccepted",
    "Revocation",
    "SecretChanged",
    "SecretRead",
    "SecretReleased",
    "TokenIssued",
    "Transition",
    "Verdict",
    "abridge",
    "cut",
]

Entry = (
    Enrolment
    | Approval
    | Verdict
    | ContainersRecorded
    | CertificateIssued
    | SecretReleased
    | TokenIssued
    | Denial
    | Revocation
    | ReferenceAccepted
    | PolicyAccepted
    | SecretChanged
    | AdminToken
    | AdminSignIn
    | LogRead
    | KeyChanged
    | PersonForgotten
    | LogEnded
    | LogContinues
    | EndorsementChanged
    | EndorsementJudged
    | Transition
    | KeyRejected
    | AttestationDemanded
    | InventoryChanged
    | SecretRead
    | NodeLabelled
)
KINDS: dict[str, type[Entry]] = {kind.predicate_type(): kind for kind in get_args(Entry)}
