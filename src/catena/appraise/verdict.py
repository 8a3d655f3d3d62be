"""What an appraisal needs to know of a node, and what it says in the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec

from catena.appraise.boot import ExaminedBoot
from catena.appraise.explanation import ExplainedEvent
from catena.appraise.facts import Facts
from catena.appraise.quote import ClockState
from catena.appraise.tpmidentity import UNKNOWN_TPM, TpmIdentity
from catena.formats.nodeapi import Reason
from catena.ids import HashAlg, NodeId, Sha256Hex

Verdict = Literal["trusted", "untrusted"]


@dataclass(frozen=True, slots=True)
class KnownNode:
    """The enrolled node, as the server remembers it; nothing here comes from the evidence.

    ``ak_public`` is the enrolled TPMT_PUBLIC; ``clock`` is the state after its last accepted
    attestation, None before the first, and ``attested`` when that was; ``tpm_kind`` is its
    endorsement's kind, ``tpm`` what its EK certificate says of the TPM; ``role``, ``site`` and
    ``channel`` are the ones it was given.
    """

    id: NodeId
    ak_public: bytes
    clock: ClockState | None
    tpm_kind: str = "unknown"
    tpm: TpmIdentity = UNKNOWN_TPM
    attested: datetime | None = None
    role: str = ""
    site: str = ""
    channel: str = ""


@dataclass(frozen=True, slots=True)
class Appraisal:
    """The judgement of one attestation. ``verdict`` is trusted exactly if there are no reasons.

    ``release`` is the release that applies as a whole. ``public_key`` is what a certificate may
    be issued for (``csr_spki`` is its DER), ``pcr_values`` the proven PCRs 0–15 of ``bank``.
    ``boot`` is what was examined, to be given to the node's next appraisal.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    facts: Facts
    events: tuple[ExplainedEvent, ...]
    clock: ClockState
    release: str | None
    boot_log_sha256: Sha256Hex
    public_key: ec.EllipticCurvePublicKey
    csr_spki: bytes
    bank: HashAlg
    pcr_values: Mapping[int, bytes]
    boot: ExaminedBoot
