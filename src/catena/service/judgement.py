"""What ``appraise`` said about evidence that is the node's own, in one shape.

Appraisal either completes, or refuses at one of the steps d to h. Both are verdicts: the
second is untrusted for one reason, without facts, events or a proven clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from catena.appraise.explanation import ExplainedEvent
from catena.appraise.quote import (
    KEPT_KEYS,
    ClockRollback,
    ClockState,
    ResetCountRollback,
    RestartCountRollback,
)
from catena.appraise.tpmidentity import UNKNOWN_TPM, TpmIdentity
from catena.appraise.verdict import Appraisal, KnownNode, Verdict
from catena.errors import Refusal
from catena.formats.nodeapi import Reason
from catena.ids import HashAlg, Sha256Hex
from catena.service.containers import ProvenContainers
from catena.service.states import SUSPECTED_CLONE
from catena.service.views import EventView
from catena.store.nodes import Clock, Node

_WENT_BACK = (ResetCountRollback, RestartCountRollback, ClockRollback)


@dataclass(frozen=True, slots=True)
class Proven:
    """What only a completed appraisal establishes."""

    public_key: ec.EllipticCurvePublicKey
    spki: bytes
    bank: HashAlg
    pcrs: Mapping[int, bytes]
    clock: Clock
    boot_log: Sha256Hex


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its reasons; ``facts`` and ``events`` are JSON, ready to be stored.

    ``containers`` are the proven container records.
    """

    reasons: tuple[Reason, ...]
    proven: Proven | None = None
    release: str | None = None
    facts: bytes = field(default=b"{}", repr=False)
    events: bytes = field(default=b"[]", repr=False)
    containers: tuple[ProvenContainers, ...] = ()

    @property
    def trusted(self) -> bool:
        """Appraised to the end, without a reason against it."""
        return self.proven is not None and not self.reasons

    @property
    def verdict(self) -> Verdict:
        """The verdict's word."""
        return "trusted" if self.trusted else "untrusted"


def judged(appraisal: Appraisal, events: bytes, containers: tuple[bytes, ...]) -> Judgement:
    """A completed appraisal; ``events`` and ``containers`` are its boot's as they are stored."""
    clock, records = appraisal.clock, appraisal.boot.records
    return Judgement(
        reasons=appraisal.reasons,
        proven=Proven(
            public_key=appraisal.public_key,
            spki=appraisal.csr_spki,
            bank=appraisal.bank,
            pcrs=appraisal.pcr_values,
            clock=Clock(clock.reset_count, clock.restart_count, clock.clock),
            boot_log=appraisal.boot_log_sha256,
        ),
        release=appraisal.release,
        facts=msgspec.json.encode(appraisal.facts),
        events=events,
        containers=tuple(
            ProvenContainers(record.place, document)
            for (record, _), document in zip(records, containers, strict=True)
        ),
    )


def events_json(appraisal: Appraisal) -> bytes:
    """The explained events as they are stored and shown."""
    return msgspec.json.encode([_event(event) for event in appraisal.events])


def refused(refusal: Refusal) -> Judgement:
    """A refusal that speaks about the node itself."""
    return Judgement(reasons_of(refusal))


def reasons_of(refusal: Refusal) -> tuple[Reason, ...]:
    """A refusal as reasons; of a TPM that went back also what that may mean."""
    reason = Reason(code=refusal.code, message=str(refusal), remedy=refusal.remedy)
    return (reason, SUSPECTED_CLONE) if isinstance(refusal, _WENT_BACK) else (reason,)


def known_to_appraise(node: Node) -> KnownNode:
    """A node's row as ``appraise`` takes it."""
    before = ClockState(node.reset_count, node.restart_count, node.clock)
    return KnownNode(
        id=node.id,
        ak_public=node.ak_public,
        clock=None if node.last_attested is None else before,
        tpm_kind=node.ek_root.partition(":")[0],
        tpm=tpm_of(node),
        attested=node.last_attested,
        role=node.role or "",
        site=node.site or "",
        channel=node.channel or "",
    )


def tpm_of(node: Node) -> TpmIdentity:
    """Which TPM a node's is, as its enrolment established it."""
    return UNKNOWN_TPM if node.tpm is None else _identity(node.tpm)


@lru_cache(maxsize=KEPT_KEYS)
def _identity(document: bytes) -> TpmIdentity:
    """A fleet has few kinds of TPM."""
    return msgspec.json.decode(document, type=TpmIdentity)


def _event(event: ExplainedEvent) -> EventView:
    return EventView(
        index=event.index,
        pcr=event.pcr,
        type=event.type,
        digest=event.digest,
        description=event.description,
        claimed_by=event.claimed_by,
        why=event.nearest,
    )
