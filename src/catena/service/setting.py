"""Everything the service works with, handed in once: keys, roots, policy, clock, randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from catena.appraise.endorsement import TrustRoots
from catena.appraise.policy import Policy
from catena.audit.evidence import EvidenceStore
from catena.formats.containerlog import CONTAINER_PCR
from catena.keys.signer import PublicKey
from catena.service.authorities import Authorities
from catena.service.journal import Journal
from catena.service.states import Rhythm
from catena.service.stopwatch import Observe, unobserved
from catena.service.vault import KeyRing
from catena.service.vouching import Vouching
from catena.store.database import Database

KEY_SIZE = 32


class Mode(StrEnum):
    """How an unknown TPM becomes a node (TRUST, enrolment step 6)."""

    APPROVE = "approve"
    INVENTORY = "inventory"
    OPEN = "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeys:
    """Symmetric keys that all replicas share; never shown.

    ``nonce`` authenticates nonces, those of ``storage`` encrypt secrets at rest.
    """

    nonce: bytes = field(repr=False)
    storage: KeyRing = field(repr=False)

    def ticket(self) -> bytes:
        """The key of enrolment tickets."""
        return self.derived(b"catena/ticket/v1")

    def derived(self, purpose: bytes) -> bytes:
        """A key for one purpose, derived so that it is never a nonce key (RFC 5869)."""
        return HKDF(hashes.SHA256(), KEY_SIZE, salt=None, info=purpose).derive(self.nonce)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all verbs share. ``now`` gives aware UTC times, ``random`` that many random bytes."""

    database: Database
    journal: Journal
    evidence: EvidenceStore
    authorities: Authorities
    keys: ServerKeys
    roots: TrustRoots
    policy: Policy
    """What a fresh server judges by, until a signed policy is applied."""
    release_keys: tuple[PublicKey, ...]
    trust_domain: str
    former_log_keys: tuple[PublicKey, ...] = ()
    """The keys of logs that ended, the newest first."""
    mode: Mode = Mode.APPROVE
    open_role: str = "node"
    """The role that the mode ``open`` gives to every node."""
    security_floor: int = 0
    """The lowest security version of a release that is admitted."""
    container_pcr: int = CONTAINER_PCR
    """The PCR of the nodes' container records; it grows at run time, so no secret is sealed to it."""
    container_indices: tuple[int, ...] = ()
    """NV indices that hold the records instead; the PCR then seals them, and grows once."""
    interval: int = 30
    """Seconds between two attestations of a node, unless ``intervals`` names its role."""
    intervals: Mapping[str, int] = field(default_factory=dict)
    missed_intervals: int = 4
    """So many without an attestation make a trusted node stale."""
    demand_poll: int = 0
    """Seconds between two questions of an agent whether it is to attest now; 0: it asks never."""
    certificate_lifetime: timedelta = timedelta(minutes=10)
    vouching: Vouching | None = None
    """Makes tokens for third parties, if there is a key for them."""
    token_longest: timedelta = timedelta(days=365)
    """How long a token may live that an admin makes."""
    observe: Observe = unobserved
    """Is told how long the steps of an attestation take."""
    crl_url: str | None = None
    """Where certificates say that the list of revoked ones is."""
    now: Callable[[], datetime]
    random: Callable[[int], bytes]

    @property
    def sealing_keys(self) -> tuple[PublicKey, ...]:
        """Under which what ``journal.seal`` signed verifies, now or before a rotation of the log."""
        return self.journal.public_key, *self.former_log_keys

    @property
    def rhythm(self) -> Rhythm:
        """How often nodes attest, and how long they may be silent."""
        return Rhythm(
            self.interval, self.missed_intervals, self.certificate_lifetime, self.intervals
        )
