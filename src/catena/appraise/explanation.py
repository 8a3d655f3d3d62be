"""Who accounts for every event, and the nearest reference where nobody does (TRUST, step 5i).

The sentences are for the person who has to decide what to do with the machine, so they say
which slot of which reference an unclaimed event stands in. They decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from catena.appraise.measured import MeasuredEvent
from catena.appraise.pcrpolicy import choose_policy
from catena.appraise.reference import (
    REQUIRED_KINDS,
    Match,
    Reference,
    ReferenceKind,
    References,
    Slot,
    choose,
)
from catena.formats.nodeapi import Reason
from catena.ids import HashAlg
from catena.measure.difference import key_changes
from catena.measure.signers import owners

MAX_UNCLAIMED_REASONS = 64
MAX_NAMED_EVENTS = 5
MAX_NAMED_KEYS = 8

_ABSENT = {
    ReferenceKind.RELEASE: ("no-release", "no accepted release describes this boot"),
    ReferenceKind.KEYSET: ("no-key-set", "no accepted key set describes the firmware's keys"),
    ReferenceKind.FIRMWARE: ("no-firmware-capture", "no accepted capture describes the firmware"),
}
_MISMATCH = {
    ReferenceKind.RELEASE: "release-mismatch",
    ReferenceKind.KEYSET: "key-set-mismatch",
    ReferenceKind.FIRMWARE: "firmware-mismatch",
    ReferenceKind.PCR_POLICY: "pcr-policy-mismatch",
}
_REMEDY = {
    ReferenceKind.RELEASE: "Boot an accepted release, or import the manifest of this one.",
    ReferenceKind.KEYSET: "Enroll the enterprise's keys with Secure Boot on, or import the key set.",
    ReferenceKind.FIRMWARE: "If the firmware was changed on purpose, capture and accept it.",
    ReferenceKind.PCR_POLICY: "Import the PCR policy of the OS version that this machine boots.",
}


class ExplainedEvent(msgspec.Struct, frozen=True, gc=False):
    """One event in log order. Exactly one of ``claimed_by`` and ``nearest`` is set."""

    measured: MeasuredEvent
    claimed_by: str | None
    nearest: str | None

    @property
    def index(self) -> int:
        """Its place in the log."""
        return self.measured.index

    @property
    def pcr(self) -> int:
        """The PCR that it extended."""
        return self.measured.pcr

    @property
    def type(self) -> str:
        """Its type by name; *untrusted*."""
        return self.measured.type

    @property
    def digest(self) -> str:
        """Its digest in the quoted bank, in hex."""
        return self.measured.digest

    @property
    def description(self) -> str:
        """One line for people."""
        return self.measured.description


@dataclass(frozen=True, slots=True)
class Explanation:
    """All events with their claims; ``matches`` holds the nearest reference of each kind."""

    events: tuple[ExplainedEvent, ...]
    matches: Mapping[ReferenceKind, Match]
    reasons: tuple[Reason, ...]
    unclaimed: int

    def applying(self, kind: ReferenceKind) -> Reference | None:
        """The reference of ``kind`` that applies as a whole."""
        found = self.matches.get(kind)
        return found.reference if found is not None and found.applies else None


def explain(
    events: Sequence[MeasuredEvent],
    references: References,
    bank: HashAlg,
    pcrs: Mapping[int, bytes],
) -> Explanation:
    """Step 5i: every event is claimed by a reference or a built-in rule, or is a reason."""
    extending = [event for event in events if event.extends]
    slots = [event.slot for event in extending]
    matches = _required(references, slots, bank, pcrs)
    policy = _instead(matches, references, extending, bank, pcrs)
    if policy is not None and policy.applies:
        matches.pop(ReferenceKind.RELEASE, None)
        matches[ReferenceKind.PCR_POLICY] = policy
    claims = _claims(extending, matches)
    nearest = _Nearest(references, matches, bank).sentences(extending, claims)
    explained = tuple(_explained(event, claims, nearest) for event in events)
    open_events = [event for event in explained if event.claimed_by is None]
    reasons = (
        *_reference_reasons(references, matches),
        *(
            [_mismatch(policy)]
            if policy is not None and policy.claims and not policy.applies
            else ()
        ),
        *_unclaimed_reasons(open_events),
    )
    return Explanation(explained, matches, reasons, len(open_events))


def _required(
    references: References, slots: Sequence[Slot], bank: HashAlg, pcrs: Mapping[int, bytes]
) -> dict[ReferenceKind, Match]:
    """The reference of each required kind that applies, or the nearest."""
    return {
        kind: found
        for kind in REQUIRED_KINDS
        if (found := choose(kind, references, slots, bank, pcrs)) is not None
    }


def _instead(
    matches: Mapping[ReferenceKind, Match],
    references: References,
    extending: Sequence[MeasuredEvent],
    bank: HashAlg,
    pcrs: Mapping[int, bytes],
) -> Match | None:
    """The PCR policy that may stand in for a release: none where a release applies.

    Either explains the operating system alone: claims of the two are never mixed, so that a
    policy cannot add what a release does not expect.
    """
    release = matches.get(ReferenceKind.RELEASE)
    if not references.pcr_policies or (release is not None and release.applies):
        return None
    return choose_policy(references, extending, bank, pcrs)


def _explained(
    event: MeasuredEvent, claims: Mapping[int, str], nearest: Mapping[int, str]
) -> ExplainedEvent:
    claimed = claims.get(event.index) if event.extends else event.rule
    return ExplainedEvent(event, claimed, None if claimed else nearest[event.index])


def _claims(
    extending: Sequence[MeasuredEvent], matches: Mapping[ReferenceKind, Match]
) -> dict[int, str]:
    """Event index to claim; a reference's own word goes before a built-in rule."""
    claims = {event.index: event.rule for event in extending if event.rule is not None}
    for found in matches.values():
        for position, expected in found.claims.items():
            claims[extending[position].index] = found.reference.claim(expected)
    return claims


class _Nearest:
    """Finds, for every unclaimed event, what a reference has in its place."""

    def __init__(
        self, references: References, matches: Mapping[ReferenceKind, Match], bank: HashAlg
    ) -> None:
        self._references = references
        self._matches = matches
        self._bank = bank
        self._vacant = {
            (found.reference.kind, index): (found.reference, index)
            for found in matches.values()
            for index in found.missing
        }
        """Expected events that did not happen, in the order they were expected."""

    def sentences(
        self, extending: Sequence[MeasuredEvent], claims: Mapping[int, str]
    ) -> dict[int, str]:
        """Event index to sentence. Exact finds come first, so that places fill up rightly."""
        repeated = {
            extending[position].index: found.reference
            for found in self._matches.values()
            for position in found.repeated
        }
        unclaimed = [event for event in extending if event.index not in claims]
        sentences: dict[int, str] = {}
        for event in unclaimed:
            if event.index in repeated:
                sentences[event.index] = (
                    f"{repeated[event.index].title} accounts for this digest, but not this often"
                )
            elif sentence := self._same_digest(event) or self._same_variable(event):
                sentences[event.index] = sentence
        for event in unclaimed:
            if event.index not in sentences:
                sentences[event.index] = self._same_slot(event)
        return sentences

    def _same_digest(self, event: MeasuredEvent) -> str | None:
        for reference in self._references.all():
            for (pcr, digest), indices in reference.slots[self._bank].items():
                if digest == event.digest:
                    where = "" if pcr == event.pcr else f" in PCR {pcr}"
                    expected = reference.events[indices[0]].id
                    return self._elsewhere(reference, f"({expected}){where}")
        return None

    def _elsewhere(self, reference: Reference, what: str) -> str:
        """Another reference's event, or one of the same reference in another PCR."""
        chosen = self._matches.get(reference.kind)
        if chosen is None or chosen.reference is reference:
            return f"{reference.title} {what} has this digest"
        return (
            f"{reference.title} {what} has this digest, "
            f"but this boot is nearest to {chosen.reference.title}"
        )

    def _same_variable(self, event: MeasuredEvent) -> str | None:
        """A firmware variable by its name, which its digest covers."""
        if event.variable is None:
            return None
        for key, (reference, index) in self._vacant.items():
            expected = reference.events[index]
            if expected.pcr == event.pcr and expected.id == event.variable.name:
                del self._vacant[key]
                return _variable_sentence(expected.id, event.variable.data, reference)
        return None

    def _same_slot(self, event: MeasuredEvent) -> str:
        """The first expected event of that PCR that did not happen stands in this place."""
        for key, (reference, index) in self._vacant.items():
            if reference.events[index].pcr == event.pcr:
                del self._vacant[key]
                return (
                    f"same slot as {reference.title} ({reference.events[index].id}), digest differs"
                )
        speakers = [
            found.reference.title
            for found in self._matches.values()
            if any(expected.pcr == event.pcr for expected in found.reference.events)
        ]
        if speakers:
            return f"{speakers[0]} expects nothing more in PCR {event.pcr}"
        return f"no reference expects anything in PCR {event.pcr}"


def _variable_sentence(name: str, content: bytes, reference: Reference) -> str:
    if name == "SecureBoot":
        state = "on" if content == b"\x01" else "off"
        wanted = "off" if state == "on" else "on"
        return f"SecureBoot variable is {state}: {reference.title} expects {wanted}"
    told = f"variable {name} differs from the one in {reference.title}"
    if name not in reference.owners:
        return told
    changes = key_changes(name, reference.owners[name], owners(content))
    return f"{told}: {'; '.join(changes[:MAX_NAMED_KEYS])}" if changes else told


def _unclaimed_reasons(events: Sequence[ExplainedEvent]) -> Iterator[Reason]:
    for event in events[:MAX_UNCLAIMED_REASONS]:
        yield Reason(
            code="unclaimed-event",
            message=f"Event {event.index} is in no reference: {event.description}: {event.nearest}",
            pcr=event.pcr,
            digest=event.digest,
            remedy="Find out what put it there; boot what a reference describes.",
        )
    rest = len(events) - MAX_UNCLAIMED_REASONS
    if rest > 0:
        yield Reason(
            code="unclaimed-events-omitted", message=f"{rest} more events are in no reference"
        )


def _reference_reasons(
    references: References, matches: Mapping[ReferenceKind, Match]
) -> Iterator[Reason]:
    """One reason for each kind of which no reference applies as a whole."""
    for kind in REQUIRED_KINDS:
        if kind is ReferenceKind.RELEASE and ReferenceKind.PCR_POLICY in matches:
            continue
        found = matches.get(kind)
        if found is None or not (found.claims or found.applies):
            code, sentence = _ABSENT[kind]
            yield Reason(code=code, message=sentence, remedy=_REMEDY[kind])
        elif not found.applies:
            yield _mismatch(found)
        elif kind is ReferenceKind.RELEASE:
            yield from _admission(found.reference, references)


def _mismatch(found: Match) -> Reason:
    reference = found.reference
    faults = []
    if not found.states_bank:
        faults.append("it states no PCR values for the quoted bank")
    if found.wrong_pcrs:
        faults.append(f"PCR {', '.join(map(str, found.wrong_pcrs))} differ")
    if found.missing:
        faults.append(f"missing {_names([reference.events[index].id for index in found.missing])}")
    return Reason(
        code=_MISMATCH[reference.kind],
        message=f"{reference.title} does not describe this boot as a whole: {'; '.join(faults)}",
        pcr=found.wrong_pcrs[0] if found.wrong_pcrs else None,
        remedy=_REMEDY[reference.kind],
    )


def _names(ids: Sequence[str]) -> str:
    more = len(ids) - MAX_NAMED_EVENTS
    return ", ".join(ids[:MAX_NAMED_EVENTS]) + (f" and {more} more" if more > 0 else "")


def _admission(release: Reference, references: References) -> Iterator[Reason]:
    """TRUST, "Releases and rollback": a signature never expires, admission does."""
    if release.security_version < references.floor:
        yield Reason(
            code="release-below-floor",
            message=f"{release.title} has security version {release.security_version}, "
            f"the fleet's floor is {references.floor}",
            remedy="Update the node to a current release.",
        )
    revoker = references.revoked_by(release)
    if revoker is not None:
        yield Reason(
            code="release-revoked",
            message=f"{release.title} was revoked by {revoker.title}",
            remedy="Update the node to a current release.",
        )
