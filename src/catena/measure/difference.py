"""What changed between two boots, or between a boot and a release, in words.

The two sides are lists of measurements, each with a PCR, a digest and a subject. They are aligned
PCR by PCR on their digests; what does not align is paired by subject, so that a key variable is
compared with the same variable and the third image with the third. Digests and their order are
what differs; the words come from proven data, and from images that are given and hash to what
was measured (``measure.images``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from catena.errors import FormatError
from catena.formats import efi, gpt
from catena.formats.references import ExpectedEvent, PcrTable
from catena.formats.tcglog import EventLog
from catena.ids import HashAlg
from catena.measure.changes import Change, Difference
from catena.measure.escape import escape
from catena.measure.images import KnownImages, piece_changes
from catena.measure.meaning import Kind, Meaning, image_path, meanings
from catena.measure.reading import Reading, read_events
from catena.measure.replay import replay
from catena.measure.signers import authority, owners

MAX_DETAILS = 64
MAX_TEXT = 300
_SHOWN_HASHES = 3

_EXPECTED_KINDS = {
    "gpt": (Kind.PARTITIONS, "partition table"),
    "uki": (Kind.IMAGE, "image 1"),
    "load-options": (Kind.LOAD_OPTIONS, "load options"),
    "initrd": (Kind.INITRD, "initrd"),
}
"""What the ids of a release manifest's events are called in a log."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement of one side; ``reading`` is set if it comes from a log."""

    pcr: int
    digest: str
    kind: Kind
    subject: str
    meaning: Meaning | None = None
    reading: Reading | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison. ``pcrs`` are the values it leads to, for the PCRs it speaks of.

    ``command_line`` is the one that a release carries in its image.
    """

    name: str
    measurements: tuple[Measurement, ...]
    pcrs: dict[int, str]
    images: KnownImages = field(default_factory=KnownImages)
    command_line: str | None = None


def side_of_log(name: str, log: EventLog, bank: HashAlg, images: KnownImages | None = None) -> Side:
    """A boot's side: everything its firmware log extended in ``bank``."""
    readings = read_events(log, bank)
    found = zip(readings, meanings(readings, bank), strict=True)
    measured = (
        Measurement(
            pcr=reading.event.pcr,
            digest=reading.event.digests.get(bank, b"").hex(),
            kind=meaning.kind,
            subject=meaning.subject,
            meaning=meaning,
            reading=reading,
        )
        for reading, meaning in found
        if meaning is not None
    )
    pcrs = {pcr: value.hex() for pcr, value in replay(log, bank).pcrs.items() if pcr < 16}
    return Side(name, tuple(measured), pcrs, images or KnownImages())


def side_of_reference(
    name: str,
    events: Iterable[ExpectedEvent],
    pcrs: PcrTable,
    bank: HashAlg,
    *,
    command_line: str | None = None,
    images: KnownImages | None = None,
) -> Side:
    """A reference's side: what it expects. Only the PCRs that it states are compared."""
    stated = {int(pcr): value for pcr, value in pcrs.get(bank.value, {}).items()}
    return Side(
        name=name,
        measurements=tuple(
            Measurement(one.pcr, one.digests[bank.value], *_expected(one))
            for one in events
            if one.pcr in stated and bank.value in one.digests
        ),
        pcrs=stated,
        images=images or KnownImages(),
        command_line=command_line,
    )


def _expected(event: ExpectedEvent) -> tuple[Kind, str]:
    """Kind and subject of an expected event, as ``meaning`` would name it."""
    known = _EXPECTED_KINDS.get(event.id)
    if known is not None:
        return known
    prefix, _, name = event.id.partition(":")
    if prefix in {"section", "section-name"}:
        return (Kind.SECTION if prefix == "section" else Kind.SECTION_NAME), name
    if event.pcr == 7 and prefix == "authority":
        return Kind.AUTHORITY, f"authority {name}"
    return (Kind.KEYS if event.pcr == 7 else Kind.OTHER), event.id


def compare(before: Side, after: Side, bank: HashAlg) -> Difference:
    """All that differs between two sides, PCR by PCR; of PCRs that both speak of."""
    measured = [*before.measurements, *after.measurements]
    partial = any(one.reading is None for one in measured)
    common = sorted(before.pcrs.keys() & after.pcrs.keys() & {one.pcr for one in measured})
    changes = [
        change
        for pcr in common
        if before.pcrs[pcr] != after.pcrs[pcr]
        for change in _changes(before, after, pcr, partial=partial)
    ]
    changed = tuple(pcr for pcr in common if before.pcrs[pcr] != after.pcrs[pcr])
    return Difference(
        bank=bank.value,
        identical=not changed,
        changes=tuple(changes) + tuple(_unexplained(changed, changes)),
        same_pcrs=tuple(pcr for pcr in common if pcr not in changed),
        changed_pcrs=changed,
        unmeasured_images=_unmeasured(before, after),
    )


def _unmeasured(before: Side, after: Side) -> tuple[str, ...]:
    measured = {one.digest for side in (before, after) for one in side.measurements}
    found = (*before.images.strangers(measured), *after.images.strangers(measured))
    return tuple(dict.fromkeys(found))


def _unexplained(changed: Sequence[int], changes: Sequence[Change]) -> Iterator[Change]:
    """A PCR that differs though its measurements do not: another start value, or order."""
    told = {change.pcr for change in changes}
    for pcr in changed:
        if pcr not in told:
            yield Change(
                pcr=pcr,
                subject="value",
                how="changed",
                sentence="the same measurements in another order, or from another start value",
            )


def _changes(before: Side, after: Side, pcr: int, *, partial: bool) -> Iterator[Change]:
    """Align the measurements of one PCR, then pair what does not align.

    A reference does not list what every boot measures: of the other side's separators and
    actions nothing is said then.
    """

    def own(side: Side) -> list[Measurement]:
        everyone = {Kind.SEPARATOR, Kind.ACTION} if partial else set()
        return [one for one in side.measurements if one.pcr == pcr and one.kind not in everyone]

    old, new = own(before), own(after)
    matcher = SequenceMatcher(
        None, [one.digest for one in old], [one.digest for one in new], autojunk=False
    )
    gone: list[Measurement] = []
    come: list[Measurement] = []
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag != "equal":
            gone += old[i:j]
            come += new[k:m]
    words = _Words(before, after)
    gone, come = _without_names(gone), _without_names(come)
    for one in gone:
        other = _partner(one, come)
        if other is None:
            yield words.removed(one)
        else:
            come.remove(other)
            if other.digest != one.digest:
                yield words.changed(one, other)
    for one in come:
        yield words.added(one)


def _without_names(some: Sequence[Measurement]) -> list[Measurement]:
    """A section's name says nothing beside the section, which comes and goes with it."""
    sections = {one.subject for one in some if one.kind is Kind.SECTION}
    return [one for one in some if one.kind is not Kind.SECTION_NAME or one.subject not in sections]


def _partner(one: Measurement, candidates: Sequence[Measurement]) -> Measurement | None:
    """The measurement of the same subject, or the first of the same kind."""
    same = [other for other in candidates if other.kind is one.kind]
    return next((other for other in same if other.subject == one.subject), None) or (
        same[0] if one.kind in _PAIRED_BY_KIND and same else None
    )


_PAIRED_BY_KIND = frozenset(
    {Kind.IMAGE, Kind.COMMAND_LINE, Kind.FIRMWARE, Kind.TABLES, Kind.LOAD_OPTIONS, Kind.INITRD}
)


class _Words:
    """Sentences about measurements of two sides."""

    def __init__(self, before: Side, after: Side) -> None:
        self._before = before
        self._after = after

    def removed(self, one: Measurement) -> Change:
        """Something that only the first side measured."""
        sentence = f"{_name(one)} is gone"
        return _change(one, "removed", sentence, _content(one, "−"), before=one.digest)

    def added(self, one: Measurement) -> Change:
        """Something that only the second side measured."""
        details = list(_content(one, "+"))
        if one.kind is Kind.COMMAND_LINE and self._before.command_line is not None:
            details = list(_line_changes(self._before.command_line, _said(one)))
        return _change(one, "added", f"{_name(one)} was added", details, after=one.digest)

    def changed(self, old: Measurement, new: Measurement) -> Change:
        """The same subject with another digest."""
        details = tuple(self._details(old, new))
        sentence = f"{_name(new)} {'differ' if new.kind is Kind.LOAD_OPTIONS else 'differs'}"
        return _change(new, "changed", sentence, details, before=old.digest, after=new.digest)

    def _details(self, old: Measurement, new: Measurement) -> Iterator[str]:
        if new.kind in {Kind.IMAGE, Kind.SECTION}:
            yield from _moved(old, new)
            yield from self._image_details(old, new)
        elif old.meaning is None or new.meaning is None:
            return
        elif new.kind in {Kind.KEYS, Kind.MODE, Kind.AUTHORITY, Kind.BOOT_VARIABLE, Kind.VARIABLE}:
            yield from _variable_changes(new, old.meaning.variable, new.meaning.variable)
        elif new.kind is Kind.PARTITIONS:
            yield from _partition_changes(old, new)
        elif new.meaning.text is not None and old.meaning.text is not None:
            yield from _line_changes(old.meaning.text, new.meaning.text)

    def _image_details(self, old: Measurement, new: Measurement) -> Iterator[str]:
        """What the images themselves say, if both are at hand."""
        if new.kind is Kind.IMAGE:
            yield from self._before.images.compare_images(
                old.digest, new.digest, self._after.images
            )
        else:
            yield from self._before.images.compare_sections(
                new.subject, old.digest, new.digest, self._after.images
            )


def _change(
    one: Measurement,
    how: str,
    sentence: str,
    details: Iterable[str],
    *,
    before: str | None = None,
    after: str | None = None,
) -> Change:
    lines = [escape(line, MAX_TEXT) for line in details]
    return Change(
        pcr=one.pcr,
        subject=escape(one.subject, MAX_TEXT),
        how=how,
        sentence=escape(sentence, MAX_TEXT),
        details=tuple(lines[:MAX_DETAILS]),
        before=before,
        after=after,
    )


def _name(one: Measurement) -> str:
    """``section .cmdline``, ``image 2``, ``variable db``; claimed names are marked."""
    if one.kind in {Kind.SECTION, Kind.SECTION_NAME}:
        return f"{one.kind.value} {one.subject}"
    if one.kind in {Kind.KEYS, Kind.MODE, Kind.BOOT_VARIABLE, Kind.VARIABLE}:
        return f"variable {one.subject}"
    if one.kind in _CLAIMED and one.meaning is not None:
        return f"{one.kind.value} {one.subject!r} (untrusted words)"
    return one.subject


_CLAIMED = frozenset({Kind.OTHER, Kind.EXTENSION, Kind.BOOT_LOADER_FILE, Kind.MOK})


def _said(one: Measurement) -> str:
    return one.meaning.text or "" if one.meaning is not None else ""


def _content(one: Measurement, sign: str) -> Iterator[str]:
    """What was added or removed, in its own words."""
    if one.kind is Kind.IMAGE and one.reading is not None:
        yield f"{sign} {one.digest}"
        yield f"  from {image_path(one.reading)} (untrusted)"
    elif _said(one) and one.kind is not Kind.ACTION:
        yield f"{sign} {_said(one)}"
    elif one.meaning is not None and one.meaning.variable is not None:
        yield f"{sign} {_variable_text(one.kind, one.meaning.variable)}"


def _moved(old: Measurement, new: Measurement) -> Iterator[str]:
    """Where the two images came from, if the logs name different places."""
    if old.kind is Kind.IMAGE and old.reading is not None and new.reading is not None:
        places = image_path(old.reading), image_path(new.reading)
        if places[0] != places[1]:
            yield f"from {places[0]} before, from {places[1]} now (untrusted)"


def _variable_text(kind: Kind, variable: efi.VariableData) -> str:
    if kind in {Kind.KEYS, Kind.AUTHORITY}:
        return "; ".join(_keys(variable))
    return efi.boot_variable_text(variable)


def _variable_changes(
    one: Measurement, old: efi.VariableData | None, new: efi.VariableData | None
) -> Iterator[str]:
    if old is None or new is None:
        return
    if one.kind is Kind.MODE:
        yield f"{one.subject}: {_mode(old)} → {_mode(new)}"
    elif one.kind in {Kind.KEYS, Kind.AUTHORITY}:
        yield from _key_changes(one.subject, _keys(old), _keys(new))
    else:
        yield f"− {efi.boot_variable_text(old)}"
        yield f"+ {efi.boot_variable_text(new)}"


def _mode(variable: efi.VariableData) -> str:
    return {b"\0": "off", b"\1": "on"}.get(variable.data, variable.data[:16].hex() or "empty")


def _keys(variable: efi.VariableData) -> tuple[str, ...]:
    if efi.holds_signature_lists(variable.data):
        return owners(variable.data)
    return (authority(variable),)


def key_changes(name: str, old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """What a key variable gained and lost, by owner; many hashes are counted."""
    return tuple(_key_changes(name, old, new))


def _key_changes(name: str, old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for verb, some, others in (("gained", new, old), ("lost", old, new)):
        found = [one for one in dict.fromkeys(some) if one not in set(others)]
        hashes = [one for one in found if one.startswith("sha256:")]
        for one in found:
            if one not in hashes:
                yield f"{name} {verb} certificate {one}"
        if len(hashes) > _SHOWN_HASHES:
            yield f"{name} {verb} {len(hashes)} hashes"
        else:
            yield from (f"{name} {verb} hash {one}" for one in hashes)
    if sorted(old) == sorted(new):
        yield f"{name} has the same entries in another order, or with other owners' GUIDs"


def _line_changes(old: str, new: str) -> Iterator[str]:
    """Words of a command line that were added and removed."""
    return piece_changes(old.split(), new.split())


def _partition_changes(old: Measurement, new: Measurement) -> Iterator[str]:
    if old.reading is None or new.reading is None:
        return
    try:
        before = gpt.parse_event(old.reading.event.data)
        after = gpt.parse_event(new.reading.event.data)
    except FormatError:
        return
    if before.disk_guid != after.disk_guid:
        yield f"disk {before.disk_guid} → {after.disk_guid}"
    known = {one.guid: one for one in before.partitions}
    here = {one.guid: one for one in after.partitions}
    for guid, one in here.items():
        if guid not in known:
            yield f"added partition {one.name!r} ({guid})"
        elif one != known[guid]:
            yield f"changed partition {one.name!r} ({guid})"
    for guid, one in known.items():
        if guid not in here:
            yield f"removed partition {one.name!r} ({guid})"
