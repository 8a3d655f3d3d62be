"""The facts that a policy judges: one flat table, the same for every boot.

Each row of ``FACT_TABLE`` is a field of ``Facts`` with what it means and the worst and best
value it can have; the worst values are what a policy must not accept. A fact that a boot does
not prove has its worst value, with one exception that is safe: firmware that measures neither
setup nor audit mode says so through ``secure_boot``, which UEFI 2.10, clause 32.3 forces to
false in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import msgspec

from catena.appraise.reference import ReferenceKind

if TYPE_CHECKING:
    from catena.appraise.explanation import Explanation
    from catena.measure.quirks import Quirk

FactValue = bool | int | str | tuple[str, ...]
MANY = 2**31


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one appraisal established; every value is bound to the quote by a digest."""

    secure_boot: bool = False
    setup_mode: bool = False
    audit_mode: bool = False
    deployed_mode: bool = False
    release: str = ""
    release_security_version: int = -1
    key_set: str = ""
    firmware: str = ""
    pcr_policy: str = ""
    unclaimed_events: int
    opaque_events: int
    bank: str
    tpm_kind: str = "unknown"
    tpm_type: str = "unknown"
    tpm_vendor: str = ""
    tpm_model: str = ""
    tpm_certified_version: str = ""
    tpm_tolerances: tuple[str, ...] = ("unknown",)
    tpm_firmware: str = ""
    tpm_firmware_number: int = 0
    startup_locality: int = 0
    reset_count: int
    restart_count: int
    clock_safe: bool
    runtime_entries: int = 0
    runtime_ahead: int = 0
    command_line: str = ""
    authorities: tuple[str, ...] = ()
    quirks: tuple[str, ...] = ()
    weaknesses: tuple[str, ...] = ()
    role: str = ""
    site: str = ""
    channel: str = ""
    container_policy: str = ""
    container_records: int = 0
    containers_started: int = 0
    containers_refused: int = 0
    containers_unverified: int = 0
    container_publishers: tuple[str, ...] = ()
    container_images: tuple[str, ...] = ()
    container_images_total: int = 0
    gate_restarts: int = 0


class ContainerFacts(TypedDict):
    """The facts that a container record proves, and what accepted policies make of it."""

    container_policy: str
    container_records: int
    containers_started: int
    containers_refused: int
    containers_unverified: int
    container_publishers: tuple[str, ...]
    container_images: tuple[str, ...]
    container_images_total: int
    gate_restarts: int


class ClaimedFacts(TypedDict):
    """The facts that change with the references: who accounts for the boot."""

    release: str
    release_security_version: int
    key_set: str
    firmware: str
    pcr_policy: str
    unclaimed_events: int
    quirks: tuple[str, ...]
    weaknesses: tuple[str, ...]


def claimed_facts(explanation: Explanation, quirks: Sequence[Quirk]) -> ClaimedFacts:
    """What follows from the references; without one that applies a fact admits least."""

    def label(kind: ReferenceKind) -> str:
        found = explanation.applying(kind)
        return found.label if found else ""

    release = explanation.applying(ReferenceKind.RELEASE)
    return ClaimedFacts(
        release=label(ReferenceKind.RELEASE),
        release_security_version=release.security_version if release else -1,
        key_set=label(ReferenceKind.KEYSET),
        firmware=label(ReferenceKind.FIRMWARE),
        pcr_policy=label(ReferenceKind.PCR_POLICY),
        unclaimed_events=explanation.unclaimed,
        quirks=tuple(rule.id for rule in quirks),
        weaknesses=tuple(rule.id for rule in quirks if rule.weakness),
    )


@dataclass(frozen=True, slots=True)
class FactRow:
    """One fact: its name in policies, its meaning, and the ends of its range."""

    name: str
    meaning: str
    worst: FactValue
    best: FactValue


FACT_TABLE = (
    FactRow("secure_boot", "the firmware measured SecureBoot as on", False, True),
    FactRow("setup_mode", "keys can be enrolled unsigned: no PK, or SetupMode is 1", True, False),
    FactRow("audit_mode", "images run without verification: AuditMode is 1", True, False),
    FactRow("deployed_mode", "the firmware measured DeployedMode as 1", False, True),
    FactRow("release", "the release that applies as a whole, or empty", "", "lab-1"),
    FactRow("release_security_version", "its security version, or -1", -1, MANY),
    FactRow("key_set", "the key set that applies as a whole, or empty", "", "acme"),
    FactRow("firmware", "the firmware capture that applies as a whole, or empty", "", "ovmf-1"),
    FactRow("pcr_policy", "the PCR policy that applies instead of a release, or empty", "", "flatcar-1"),
    FactRow("unclaimed_events", "events that no reference accounts for", MANY, 0),
    FactRow("opaque_events", "events whose data does not hash to their digest", MANY, 0),
    FactRow("bank", "the PCR bank that was quoted", "sha256", "sha512"),
    FactRow("tpm_kind", "who vouches for the TPM: vendor, enterprise, software, pinned", "unknown", "vendor"),
    FactRow("tpm_type", "how the TPM is made: discrete, firmware, virtual", "unknown", "discrete"),
    FactRow("tpm_vendor", "its vendor's id in the EK certificate, or empty", "", "IFX"),
    FactRow("tpm_model", "its model in the EK certificate, or empty", "", "SLB9672"),
    FactRow("tpm_certified_version", "its firmware when the EK certificate was made, or empty", "", "15.20"),
    FactRow("tpm_tolerances", "what its certificates were forgiven, by name", ("unknown",), ()),
    FactRow("tpm_firmware", "the firmware that made the quote, as 7.2.1.0", "", "15.20.16686.0"),
    FactRow("tpm_firmware_number", "the same as one number of 64 bits, to compare", 0, MANY),
    FactRow("startup_locality", "locality that started the TPM (0, 3, or 4 after H-CRTM)", 0, 4),
    FactRow("reset_count", "TPM resets since the TPM was last cleared", MANY, 0),
    FactRow("restart_count", "resumes since the last TPM reset", MANY, 0),
    FactRow("clock_safe", "the TPM's clock value cannot have been reported before", False, True),
    FactRow("runtime_entries", "IMA entries that the quote covers", MANY, 0),
    FactRow("runtime_ahead", "IMA entries sent but not covered yet", MANY, 0),
    FactRow("command_line", "what was added to the release's own command line (PCR 12)", "", "root"),
    FactRow("authorities", "subjects of the db certificates that verified an image", (), ("db",)),
    FactRow("quirks", "ids of the quirk rules that recognise something in this boot", ("odd",), ()),
    FactRow("weaknesses", "those by which firmware says that a protection is off", ("odd",), ()),
    FactRow("role", "the node's role, which the server assigned, or empty", "", "web"),
    FactRow("site", "where the inventory says that the node stands, or empty", "", "berlin"),
    FactRow("channel", "the release channel that the inventory gives it, or empty", "", "stable"),
    FactRow("container_policy", "the accepted container policy in force, or empty", "", "acme@1"),
    FactRow("container_records", "records of the container gate that the quote covers", MANY, 0),
    FactRow("containers_started", "containers that the gate let start in this boot", MANY, 0),
    FactRow("containers_refused", "starts and commands that the gate refused", MANY, 0),
    FactRow("containers_unverified", "those let through for which no accepted policy accounts", MANY, 0),
    FactRow("container_publishers", "publishers of all containers that started", ("stranger",), ()),
    FactRow("container_images", "digests of their images; a last one `more` stands for the rest", ("more",), ()),
    FactRow("container_images_total", "how many images these are (1024 or more are 1024)", MANY, 0),
    FactRow("gate_restarts", "how often the container gate was started again in this boot", MANY, 0),
)  # fmt: skip


def worst_facts() -> dict[str, FactValue]:
    """Every fact at its worst: no policy may accept this boot."""
    return {row.name: row.worst for row in FACT_TABLE}


def best_facts() -> dict[str, FactValue]:
    """Every fact at its best."""
    return {row.name: row.best for row in FACT_TABLE}
