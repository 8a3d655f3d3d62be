"""The references a boot is judged against, and how one of them is found to apply.

An event is claimed by PCR and digest alone: its type and most of its data are covered by no
digest. But a reference applies only **as a whole**, which per-event claims could not show:

1. every event that it expects has happened, as often as it expects it;
2. every PCR that it states has, after the replay, the stated value, so order counts too;
3. all events of a kind are claimed by *one* reference of that kind, never by a mixture.

PCR 10 is the exception to 1: IMA measures files when they are used, in any order, so an
expectation there claims whatever matches and is never missed.

An imported PCR policy lists alternatives, not expectations; ``appraise.pcrpolicy`` says when it
applies, and that it may only stand in for a release.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from catena.appraise.containerpolicy import ContainerReference, container_reference
from catena.errors import CatenaError, ExitCode
from catena.formats.containerlog import CONTAINER_PCR
from catena.formats.containerpolicy import ContainerPolicy
from catena.formats.pattern import compile_pattern
from catena.formats.references import (
    BANK_OF_SIZE,
    ExpectedEvent,
    FirmwareCapture,
    KeySet,
    PcrPolicy,
    PcrRule,
    PcrTable,
    ReleaseManifest,
)
from catena.ids import QUOTED_PCRS, HashAlg, Sha256Hex
from catena.measure.quirks import Quirks, shipped
from catena.measure.replay import IMA_PCR

FIRMWARE_PCRS = (0, 1, 2, 3, 6)
KEYSET_PCRS = (7,)
RELEASE_PCRS = (4, 5, 8, 9, 10, 11, 12, 13, 14, 15)
POLICY_PCRS = tuple(pcr for pcr in RELEASE_PCRS if pcr != IMA_PCR)
BANKS = (HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512)


class UnusableReference(CatenaError):
    """A reference document that could never be compared with a boot."""

    code = "reference-unusable"
    exit_code = ExitCode.MALFORMED
    remedy = "Make the reference again with this version of catena."


class ReferenceKind(StrEnum):
    """What a reference speaks about; its value is the prefix of claims."""

    RELEASE = "release"
    KEYSET = "keyset"
    FIRMWARE = "firmware"
    PCR_POLICY = "pcr-policy"

    @property
    def noun(self) -> str:
        """The kind as people say it."""
        return {"keyset": "key set", "pcr-policy": "PCR policy"}.get(self.value, self.value)


REQUIRED_KINDS = (ReferenceKind.RELEASE, ReferenceKind.KEYSET, ReferenceKind.FIRMWARE)
"""One of each has to apply; a PCR policy may stand in for the release."""


_OWN_PCRS = {
    ReferenceKind.RELEASE: RELEASE_PCRS,
    ReferenceKind.KEYSET: KEYSET_PCRS,
    ReferenceKind.FIRMWARE: FIRMWARE_PCRS,
    ReferenceKind.PCR_POLICY: POLICY_PCRS,
}

Slot = tuple[int, str]
"""What a claim goes by: PCR and digest (hex) in the quoted bank."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One document, made ready for comparison.

    ``slots`` maps bank, then PCR and digest, to the indices of ``events`` that expect it;
    ``pcrs`` maps bank to stated PCR values. ``names`` are what ``revokes`` may call it.
    ``owners`` maps a firmware variable to the subjects of the keys that a key set has in it.
    ``rules`` are a PCR policy's, in the order of ``events``.
    """

    kind: ReferenceKind
    label: str
    names: frozenset[str]
    events: tuple[ExpectedEvent, ...]
    slots: Mapping[HashAlg, Mapping[Slot, tuple[int, ...]]]
    pcrs: Mapping[HashAlg, Mapping[int, bytes]]
    security_version: int = -1
    revokes: frozenset[str] = frozenset()
    owners: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rules: tuple[PcrRule, ...] = ()

    @property
    def title(self) -> str:
        """``release lab-1``."""
        return f"{self.kind.noun} {self.label}"

    def claim(self, index: int) -> str:
        """``release:lab-1 (uki)``."""
        return f"{self.kind}:{self.label} ({self.events[index].id})"


@dataclass(frozen=True, slots=True)
class References:
    """All active references. ``floor`` is the fleet's lowest acceptable security version.

    ``container_policies`` account for the gate's record in ``container_pcr``, by digest. With
    ``container_indices`` there is a record in each of these NV indices, and that PCR seals them.
    ``quirks`` are a source of claims like the others, named and versioned; they come with catena.
    """

    releases: tuple[Reference, ...] = ()
    keysets: tuple[Reference, ...] = ()
    firmware: tuple[Reference, ...] = ()
    pcr_policies: tuple[Reference, ...] = ()
    floor: int = 0
    quirks: Quirks = field(default_factory=shipped)
    container_policies: Mapping[Sha256Hex, ContainerReference] = field(default_factory=dict)
    container_pcr: int = CONTAINER_PCR
    container_indices: tuple[int, ...] = ()

    def of(self, kind: ReferenceKind) -> tuple[Reference, ...]:
        """The references of one kind."""
        by_kind = {
            ReferenceKind.RELEASE: self.releases,
            ReferenceKind.KEYSET: self.keysets,
            ReferenceKind.FIRMWARE: self.firmware,
            ReferenceKind.PCR_POLICY: self.pcr_policies,
        }
        return by_kind[kind]

    def all(self) -> tuple[Reference, ...]:
        """Every reference, releases first."""
        return (*self.releases, *self.keysets, *self.firmware, *self.pcr_policies)

    def revoked_by(self, release: Reference) -> Reference | None:
        """An active release that revokes ``release``, itself included."""
        return next((other for other in self.releases if other.revokes & release.names), None)


@dataclass(frozen=True, slots=True)
class Match:
    """One reference held against one boot.

    ``claims`` maps positions of measured events to indices of expected ones; ``repeated`` are
    positions that match an expectation which was used up before.
    """

    reference: Reference
    claims: Mapping[int, int]
    repeated: frozenset[int]
    missing: tuple[int, ...]
    wrong_pcrs: tuple[int, ...]
    states_bank: bool

    @property
    def applies(self) -> bool:
        """Whether the reference describes this boot as a whole."""
        return self.states_bank and not self.missing and not self.wrong_pcrs


def build_references(
    *,
    releases: Iterable[ReleaseManifest] = (),
    keysets: Iterable[KeySet] = (),
    firmware: Iterable[FirmwareCapture] = (),
    pcr_policies: Iterable[PcrPolicy] = (),
    container_policies: Iterable[ContainerPolicy] = (),
    floor: int = 0,
    container_pcr: int = CONTAINER_PCR,
    container_indices: tuple[int, ...] = (),
) -> References:
    """Prepare verified documents for comparison, once per change of the active set.

    Raises ``UnusableReference`` or ``AmbiguousContainerPolicy``.
    """
    return References(
        releases=tuple(map(_release, releases)),
        keysets=tuple(map(_keyset, keysets)),
        firmware=tuple(map(_firmware, firmware)),
        pcr_policies=tuple(map(_pcr_policy, pcr_policies)),
        floor=floor,
        container_policies={
            prepared.digest: prepared for prepared in map(container_reference, container_policies)
        },
        container_pcr=container_pcr,
        container_indices=container_indices,
    )


def _release(manifest: ReleaseManifest) -> Reference:
    label = versioned(manifest.name, manifest.version)
    return _prepare(
        ReferenceKind.RELEASE,
        label,
        manifest.name,
        manifest.events,
        manifest.pcrs,
        security_version=manifest.security_version,
        revokes=frozenset(manifest.revokes),
    )


def _keyset(document: KeySet) -> Reference:
    kind = ReferenceKind.KEYSET
    prepared = _prepare(kind, document.name, document.name, document.events, document.pcrs)
    return replace(prepared, owners=document.certificates)


def _firmware(document: FirmwareCapture) -> Reference:
    kind, label = ReferenceKind.FIRMWARE, versioned(document.name, document.version)
    return _prepare(kind, label, document.name, document.events, document.pcrs)


def _pcr_policy(document: PcrPolicy) -> Reference:
    kind, label = ReferenceKind.PCR_POLICY, versioned(document.name, document.version)
    for rule in document.rules:
        if rule.kind == "ascii":
            compile_pattern(rule.value)
        elif len(rule.value) not in BANK_OF_SIZE or not re.fullmatch("[0-9a-f]+", rule.value):
            raise UnusableReference(f"{label} has a digest that is none", got=rule.id)
    return _prepare(kind, label, document.name, document.events, {}, rules=document.rules)


def versioned(name: str, version: str) -> str:
    """``lab`` and ``1`` as ``lab-1``; a name that already ends in its version stays."""
    return name if name.endswith(f"-{version}") else f"{name}-{version}"


def _prepare(
    kind: ReferenceKind,
    label: str,
    name: str,
    events: tuple[ExpectedEvent, ...],
    pcrs: PcrTable,
    *,
    security_version: int = -1,
    revokes: frozenset[str] = frozenset(),
    rules: tuple[PcrRule, ...] = (),
) -> Reference:
    """Refuse what could never match, and what is not this kind's to say.

    A release may insist on the keys under which it runs, but only a key set explains them.
    """
    stated = _pcr_values(pcrs, label)
    also = KEYSET_PCRS if kind is ReferenceKind.RELEASE else ()
    foreign = {event.pcr for event in events} - set(_OWN_PCRS[kind])
    foreign |= set().union(*stated.values()) - {*_OWN_PCRS[kind], *also}
    if foreign:
        raise UnusableReference(
            f"{kind.noun} {label} speaks about PCRs that are not its own",
            expected=", ".join(map(str, _OWN_PCRS[kind])),
            got=", ".join(map(str, sorted(foreign))),
        )
    return Reference(
        kind=kind,
        label=label,
        names=frozenset({name, label}),
        events=events,
        slots={bank: _slots(events, bank) for bank in BANKS},
        pcrs=stated,
        security_version=security_version,
        revokes=revokes,
        rules=rules,
    )


def _slots(events: Sequence[ExpectedEvent], bank: HashAlg) -> dict[Slot, tuple[int, ...]]:
    slots: dict[Slot, tuple[int, ...]] = {}
    for index, event in enumerate(events):
        digest = event.digests.get(bank)
        if digest is None:
            continue
        if not re.fullmatch(f"[0-9a-f]{{{2 * bank.size}}}", digest):
            raise UnusableReference(f"event {index} has a {bank} digest that is none")
        slot = (event.pcr, digest)
        slots[slot] = (*slots.get(slot, ()), index)
    return slots


def _pcr_values(table: PcrTable, label: str) -> dict[HashAlg, dict[int, bytes]]:
    """The stated values; banks that are never quoted are left out."""
    values: dict[HashAlg, dict[int, bytes]] = {}
    for bank in BANKS:
        if bank not in table:
            continue
        try:
            values[bank] = {int(pcr): bytes.fromhex(value) for pcr, value in table[bank].items()}
        except ValueError as error:
            raise UnusableReference(f"{label} states PCRs that are no hex digests") from error
        for pcr, value in values[bank].items():
            if pcr not in QUOTED_PCRS or pcr == IMA_PCR or len(value) != bank.size:
                raise UnusableReference(f"{label} states a value that PCR {pcr} cannot have")
    return values


def match(
    reference: Reference, measured: Sequence[Slot], bank: HashAlg, pcrs: Mapping[int, bytes]
) -> Match:
    """Hold one reference against the extended events (in log order) and the replayed PCRs."""
    slots, stated = reference.slots[bank], reference.pcrs.get(bank, {})
    left = {slot: list(indices) for slot, indices in slots.items()}
    claims: dict[int, int] = {}
    repeated: set[int] = set()
    for position, slot in enumerate(measured):
        if slot not in left:
            continue
        if slot[0] == IMA_PCR:
            claims[position] = slots[slot][0]
        elif left[slot]:
            claims[position] = left[slot].pop(0)
        else:
            repeated.add(position)
    used = set(claims.values())
    return Match(
        reference=reference,
        claims=claims,
        repeated=frozenset(repeated),
        missing=tuple(
            index
            for index, event in enumerate(reference.events)
            if index not in used and event.pcr != IMA_PCR
        ),
        wrong_pcrs=tuple(pcr for pcr, value in sorted(stated.items()) if pcrs[pcr] != value),
        states_bank=bool(stated),
    )


def choose(
    kind: ReferenceKind,
    references: References,
    measured: Sequence[Slot],
    bank: HashAlg,
    pcrs: Mapping[int, bytes],
) -> Match | None:
    """The one reference of a kind that this boot follows, or else the nearest.

    Of several that apply, one that is not revoked and has the highest security version wins;
    of several that do not, the one with most events in common. None if there are none.
    """
    matches = [match(reference, measured, bank, pcrs) for reference in references.of(kind)]

    def rank(found: Match) -> tuple[bool, bool, int, int, int, str]:
        reference = found.reference
        return (
            found.applies,
            found.applies and references.revoked_by(reference) is None,
            0 if found.applies else len(found.claims),
            reference.security_version,
            -len(found.wrong_pcrs),
            reference.label,
        )

    return max(matches, key=rank, default=None)
