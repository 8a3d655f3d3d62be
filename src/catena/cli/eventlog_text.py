"""How ``catena eventlog`` tells a boot to a person. Logs speak untrusted text: all is escaped."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import click
import msgspec

from catena.formats.tcglog import EventLog, event_type_name
from catena.ids import PCR_COUNT, HashAlg
from catena.measure.changes import Change, Difference
from catena.measure.describe import describe_reading
from catena.measure.listing import Listing
from catena.measure.meaning import Kind, Meaning, meanings
from catena.measure.reading import Reading, read_events
from catena.measure.story import Claim, Image, LoadOptions, Story

WIDTH = 100
MAX_HASHES = 2
MAX_LINES = 8
_INDENT = 18
_SHORT = 16


class EventLine(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a log; ``proven`` is how much of its data the digest covers."""

    index: int
    pcr: int
    type: str
    digest: str
    proven: str
    description: str


def event_views(log: EventLog, bank: HashAlg) -> tuple[EventLine, ...]:
    """All events of a log."""
    readings = read_events(log, bank)
    return tuple(
        EventLine(
            index=one.event.index,
            pcr=one.event.pcr,
            type=event_type_name(one.event.type),
            digest=one.event.digests.get(bank, b"").hex(),
            proven=one.binding.value,
            description=_described(one, meaning),
        )
        for one, meaning in zip(readings, meanings(readings, bank), strict=True)
    )


def _described(reading: Reading, meaning: Meaning | None) -> str:
    """A section is what its name in front of it says, not what its own event does."""
    if meaning is not None and meaning.kind is Kind.SECTION:
        return f"content of UKI section {meaning.subject}"
    return describe_reading(reading)


def render_events(events: tuple[EventLine, ...]) -> None:
    """A line for each event, wrapped under its description."""
    _row("event  PCR  digest        ", "what was measured")
    for one in events:
        place = str(one.pcr) if one.pcr < PCR_COUNT else "-"
        _row(f"{one.index:>5}  {place:>3}  {one.digest[:12]:<12}  ", one.description)


def _row(head: str, words: str) -> None:
    wrapped = textwrap.wrap(words, WIDTH - len(head), break_on_hyphens=False) or [""]
    for number, piece in enumerate(wrapped):
        click.echo(f"{head if number == 0 else ' ' * len(head)}{piece}")


def render_listing(listing: Listing) -> None:
    """A line for each entry; words that nothing proves are marked."""
    name = {"ima": "IMA log", "cel": "canonical event log"}[listing.format]
    marks = f"{listing.unproven} of them not proven, {listing.violations} violations"
    click.echo(f"{name}, {listing.events} entries, {marks}\n")
    for one in listing.entries:
        place = "NV" if one.pcr is None else f"{one.pcr:>2}"
        mark = "violation: " if one.violation else "" if one.proven else "untrusted: "
        algorithm, _, digest = one.digest.rpartition(":")
        short = f"{algorithm}:{digest[:_SHORT]}" if algorithm else digest[:_SHORT]
        click.echo(f"{one.index:>6}  {place}  {short:<23}  {mark}{one.words}")


def render_story(story: Story) -> None:
    """A story in sections, each a few lines; ``-o json`` has everything."""
    for title, lines in _sections(story):
        shown = list(lines)
        if not shown:
            continue
        _paragraph(title, shown[0])
        for line in shown[1:]:
            _paragraph("", line)


def render_difference(found: Difference) -> None:
    """Changes by PCR, then what follows."""
    pcr = None
    for change in found.changes:
        head = f"PCR {change.pcr}" if change.pcr != pcr else ""
        pcr = change.pcr
        _paragraph(head, f"{_SIGNS[change.how]} {change.sentence}")
        for line in (*_digests(change), *change.details):
            _paragraph("", f"    {line}")
    same, changed = (_list(one) for one in (found.same_pcrs, found.changed_pcrs))
    _paragraph("Follows", f"PCR {changed} differ in {found.bank}" if changed else "nothing differs")
    if same:
        _paragraph("Same", f"PCR {same}")
    for digest in found.unmeasured_images:
        _paragraph("Of no use", f"an image that neither side measured: {digest}")


def _digests(change: Change) -> Iterator[str]:
    """The two digests, where no words say what changed between them."""
    if not change.details and change.before and change.after:
        yield f"{change.before[:_SHORT]}… → {change.after[:_SHORT]}…"


_SIGNS = {"added": "+", "removed": "−", "changed": "≠"}


def _list(pcrs: Sequence[int]) -> str:
    return ", ".join(map(str, pcrs))


def _sections(story: Story) -> Iterator[tuple[str, Iterable[str]]]:
    yield "Firmware", _firmware(story)
    yield "Secure Boot", [_secure_boot(story)]
    for name, keys in story.keys.items():
        yield name, _keys(keys)
    yield "Drivers", _drivers([one for one in story.images if one.pcr == 2])
    yield "What ran", _ran(story)
    yield "Authorised by", [] if story.secure_boot else _few([*map(_authority, story.authorities)])
    yield "Shim", _shim(story)
    yield "Disk", _disk(story)
    yield "Boot options", _few(story.boot_options)
    yield "Boot loader", _few(story.boot_loader_commands)
    yield "Kernel lines", [f"{line} (its use is GRUB's word)" for line in story.kernel_lines]
    yield "Command line", story.command_lines
    yield "Kernel image", [f"{name:<10} {digest}" for name, digest in story.uki_sections.items()]
    yield "Kernel options", [_load_options(one) for one in story.load_options]
    yield "Initrd", [_initrd(story, digest) for digest in story.initrds]
    yield "Extensions", [_claim(one) for one in story.extensions]
    yield "Phases", [", ".join(story.phases)] if story.phases else []
    yield "Windows", [f"its boot manager made {story.windows} measurements"] * bool(story.windows)
    yield "", [""]
    yield "Problems", _problems(story)
    yield "Not proven", _unproven(story)


def _firmware(story: Story) -> Iterator[str]:
    name = {"tcg2": "TPM 2.0", "tcg12": "TPM 1.2", "ccel": "confidential VM"}[story.format]
    version = (
        "version not told"
        if story.firmware_version is None
        else (
            f"version {story.firmware_version!r}"
            if story.firmware_version
            else "version left empty"
        )
    )
    yield f"{version}; log of a {name}, {story.events} events, read in {story.bank}"
    if story.format == "ccel":
        yield "its registers are told as the PCRs that they stand for"
    if story.startup_locality is not None:
        yield f"the TPM was started at locality {story.startup_locality}"


def _secure_boot(story: Story) -> str:
    state = {True: "on", False: "off", None: "not proven by this log"}[story.secure_boot]
    modes = (
        ("setup mode: keys can be enrolled unsigned", story.setup_mode),
        ("audit mode: nothing is verified", story.audit_mode),
        ("deployed mode", story.deployed_mode),
    )
    return "; ".join([state, *(words for words, on in modes if on)])


def _keys(keys: Sequence[str]) -> Iterator[str]:
    """Certificates by name, hashes counted."""
    hashes = [one for one in keys if one.startswith("sha256:")]
    names = [one for one in keys if not one.startswith("sha256:")]
    if not keys:
        yield "empty"
    yield from map(_owner, names)
    if len(hashes) > MAX_HASHES:
        yield f"{len(hashes)} hashes of images"
    else:
        yield from hashes


def _drivers(images: Sequence[Image]) -> list[str]:
    return [f"{len(images)} started from firmware or option ROMs"] if images else []


def _ran(story: Story) -> Iterator[str]:
    images = [one for one in story.images if one.pcr == 4]
    return _images(images, secure_boot=story.secure_boot)


def _owner(name: str) -> str:
    """Common name and organisation of a subject (RFC 4514); place and mail only with -o json."""
    kept = [one for one in _ATTRIBUTES.findall(name) if one.startswith(("CN=", "O="))]
    return ", ".join(kept) if any(one.startswith("CN=") for one in kept) else name


_ATTRIBUTES = re.compile(r"(?:\\.|[^,\\])+")


def _authority(line: str) -> str:
    """An authority, and the database that has it in brackets."""
    name, bracket, database = line.rpartition(" (")
    return f"{_owner(name)}{bracket}{database}" if bracket else line


def _images(images: Sequence[Image], *, secure_boot: bool | None) -> Iterator[str]:
    for number, image in enumerate(images, start=1):
        yield f"{number}. {image.digest}"
        yield f"   from {_file(image.untrusted_path)} (untrusted)"
        if image.authorised_by:
            yield f"   authorised by {_authority(image.authorised_by)}"
        elif secure_boot:
            yield "   no further key was logged for it"


def _file(path: str) -> str:
    """The last part of a device path: the file, if it names one."""
    return path.rpartition("/")[2] or path


def _shim(story: Story) -> Iterator[str]:
    if story.sbat_level is not None:
        yield f"SBAT level: {', '.join(story.sbat_level.split())}"
    yield from story.machine_owner_keys


def _disk(story: Story) -> Iterator[str]:
    if story.disk_guid is not None:
        yield f"GPT {story.disk_guid}"
        yield from (f"  {one.name or 'no name'} ({one.guid})" for one in story.partitions)


def _initrd(story: Story, digest: str) -> str:
    own = story.uki_sections.get(".initrd") == digest
    return "the kernel image's own, by its digest" if own else f"{digest} (its digest)"


def _load_options(options: LoadOptions) -> str:
    known = options.text is not None
    return "the command line above, by its digest" if known else f"{options.digest} (their digest)"


def _few(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:MAX_LINES]
    if len(lines) > MAX_LINES:
        yield f"… and {len(lines) - MAX_LINES} more (-o json has all)"


def _problems(story: Story) -> list[str]:
    lines = [
        f"{one.message} [{one.code}]" + ("" if one.event is None else f", event {one.event}")
        for one in story.problems
    ]
    return list(_few(lines)) or ["none found"]


def _unproven(story: Story) -> Iterator[str]:
    """Measurements of which only the digest is known, counted by the words the log has for them."""
    counted = Counter((one.pcr, one.untrusted_words) for one in story.untrusted)
    lines = [
        f"PCR {pcr}: {words}" + (f" ({count} times)" if count > 1 else "")
        for (pcr, words), count in counted.items()
    ]
    yield from _few(lines)


def _claim(claim: Claim) -> str:
    return f"{claim.digest[:16]}… in PCR {claim.pcr}: {claim.untrusted_words!r} (untrusted)"


def _paragraph(title: str, line: str) -> None:
    """One line of a section, wrapped with a hanging indent."""
    lead = len(line) - len(line.lstrip())
    wrapped = textwrap.wrap(
        line.strip(), WIDTH - _INDENT - lead, break_long_words=True, break_on_hyphens=False
    ) or [""]
    for number, piece in enumerate(wrapped):
        margin = f"{title:<{_INDENT}}" if number == 0 else " " * _INDENT
        click.echo(f"{margin}{' ' * lead}{piece}".rstrip())
