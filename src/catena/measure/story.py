"""A boot as a person would tell it: what firmware, whose keys, what ran, with which words.

Everything in a ``Story`` is bound to a digest of the log, but for the fields named *untrusted*.
A story is told of any log that parses: it says what the log proves *if* the PCRs were quoted so,
and lists what is wrong with it. Judging a machine takes a quote and references (``appraise``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from catena.errors import FormatError
from catena.formats import efi, gpt
from catena.formats.tcglog import EventLog, EventType
from catena.ids import HashAlg
from catena.measure import facts as boot_facts
from catena.measure import grammar
from catena.measure.edited import EditedData, edited
from catena.measure.escape import escape
from catena.measure.facts import BootFacts, ContradictoryVariable
from catena.measure.meaning import Kind, Meaning, claimed_text, image_path, meanings
from catena.measure.quirks import shipped
from catena.measure.reading import Reading, read_events
from catena.measure.registers import as_pcrs
from catena.measure.replay import startup_locality
from catena.measure.retyped import retyped
from catena.measure.signers import authority, owners

MAX_LINE = 4096


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """Something firmware or a boot loader started, by its Authenticode digest.

    ``authorised_by`` is the key that firmware or shim logged right before it: their order across
    PCRs is the log's word. Empty if no key was named anew, or Secure Boot is off.
    """

    pcr: int
    digest: str
    untrusted_path: str
    authorised_by: str


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of the disk that was booted."""

    name: str
    type: str
    guid: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that sound firmware does not log."""

    code: str
    message: str
    event: int | None


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement whose digest is proven, and whose words are not."""

    event: int
    pcr: int
    digest: str
    untrusted_words: str


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel was started with: ``text`` if a command line of this boot hashes to it."""

    digest: str
    text: str | None


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """One boot. ``keys`` maps PK, KEK, db and dbx to their owners, one each; None is not proven.

    ``kernel_lines`` are proven commands of GRUB; that it booted a kernel with them is its word.
    The registers of a confidential VM (format ``ccel``) are told as the PCRs they stand for.
    """

    format: str
    bank: str
    events: int
    startup_locality: int | None
    firmware_version: str | None
    secure_boot: bool | None
    setup_mode: bool | None
    audit_mode: bool | None
    deployed_mode: bool | None
    keys: dict[str, tuple[str, ...]]
    images: tuple[Image, ...]
    authorities: tuple[str, ...]
    sbat_level: str | None
    machine_owner_keys: tuple[str, ...]
    disk_guid: str | None
    partitions: tuple[Partition, ...]
    boot_options: tuple[str, ...]
    boot_loader_commands: tuple[str, ...]
    kernel_lines: tuple[str, ...]
    command_lines: tuple[str, ...]
    load_options: tuple[LoadOptions, ...]
    initrds: tuple[str, ...]
    uki_sections: dict[str, str]
    extensions: tuple[Claim, ...]
    phases: tuple[str, ...]
    windows: int
    problems: tuple[Problem, ...]
    untrusted: tuple[Claim, ...]


def tell(log: EventLog, bank: HashAlg) -> Story:
    """The story of a firmware log in one of its banks."""
    log = as_pcrs(log, bank)
    readings = read_events(log, bank)
    told = _Told(readings, meanings(readings, bank), bank)
    facts, contradiction = _facts(log, bank, readings)
    return Story(
        format=log.format,
        bank=bank.value,
        events=len(log.events),
        startup_locality=startup_locality(log),
        firmware_version=told.first_text(Kind.FIRMWARE_VERSION),
        secure_boot=facts.secure_boot if facts else None,
        setup_mode=facts.setup_mode if facts else None,
        audit_mode=facts.audit_mode if facts else None,
        deployed_mode=facts.deployed_mode if facts else None,
        keys=facts.key_owners if facts else {},
        images=tuple(told.images()),
        authorities=tuple(told.authorities()),
        sbat_level=told.first_text(Kind.SBAT),
        machine_owner_keys=tuple(told.machine_owner_keys()),
        disk_guid=told.disk_guid(),
        partitions=tuple(told.partitions()),
        boot_options=tuple(told.boot_options()),
        boot_loader_commands=told.texts(Kind.BOOT_LOADER_LINE),
        kernel_lines=told.texts(Kind.KERNEL_LINE),
        command_lines=told.texts(Kind.COMMAND_LINE),
        load_options=tuple(told.load_options()),
        initrds=told.digests(Kind.INITRD),
        uki_sections=told.sections(),
        extensions=tuple(told.claims(Kind.EXTENSION)),
        phases=told.texts(Kind.PHASE),
        windows=len(told.of(Kind.WINDOWS)),
        problems=tuple(_problems(log, bank, readings, contradiction)),
        untrusted=tuple(told.claims(*_CLAIMED)),
    )


_CLAIMED = (
    Kind.FIRMWARE,
    Kind.TABLES,
    Kind.BOOT_LOADER_LINE,
    Kind.BOOT_LOADER_FILE,
    Kind.MOK,
    Kind.OTHER,
    Kind.KEYS,
    Kind.MODE,
)


class _Told:
    """The events of a log beside their meanings, to be asked by kind."""

    def __init__(
        self, readings: Sequence[Reading], found: Sequence[Meaning | None], bank: HashAlg
    ) -> None:
        self._bank = bank
        self._all = [
            (reading, meaning)
            for reading, meaning in zip(readings, found, strict=True)
            if meaning is not None
        ]

    def of(self, *kinds: Kind) -> list[tuple[Reading, Meaning]]:
        """Events of these kinds, in log order."""
        return [one for one in self._all if one[1].kind in kinds]

    def texts(self, kind: Kind) -> tuple[str, ...]:
        """The proven texts of one kind."""
        return tuple(
            escape(meaning.text, MAX_LINE)
            for _, meaning in self.of(kind)
            if meaning.proven and meaning.text is not None
        )

    def first_text(self, kind: Kind) -> str | None:
        """The first proven text of a kind, if there is one."""
        return next(iter(self.texts(kind)), None)

    def digests(self, kind: Kind) -> tuple[str, ...]:
        """What was measured of one kind, by digest."""
        return tuple(self._digest(reading) for reading, _ in self.of(kind))

    def load_options(self) -> Iterator[LoadOptions]:
        """Linux's own options: UTF-16 with NUL, which boot loaders may have measured, too."""
        lines = {
            self._bank.digest(f"{meaning.text}\0".encode("utf-16-le")).hex(): meaning.text
            for _, meaning in self.of(Kind.COMMAND_LINE)
            if meaning.text is not None
        }
        for digest in self.digests(Kind.LOAD_OPTIONS):
            line = lines.get(digest)
            yield LoadOptions(digest=digest, text=None if line is None else escape(line, MAX_LINE))

    def sections(self) -> dict[str, str]:
        """Sections of the unified kernel image, in measured order."""
        return {meaning.subject: self._digest(one) for one, meaning in self.of(Kind.SECTION)}

    def images(self) -> Iterator[Image]:
        """Everything started, with the key that was named since the image before it."""
        named = ""
        for reading, meaning in self.of(Kind.IMAGE, Kind.AUTHORITY):
            if meaning.kind is Kind.AUTHORITY:
                named = _authority(meaning)
                continue
            yield Image(
                pcr=reading.event.pcr,
                digest=self._digest(reading),
                untrusted_path=image_path(reading),
                authorised_by=named,
            )
            named = ""

    def authorities(self) -> Iterator[str]:
        """Whose keys vouched for something."""
        for _, meaning in self.of(Kind.AUTHORITY):
            yield _authority(meaning)

    def machine_owner_keys(self) -> Iterator[str]:
        """What shim measured of its own keys; content is proven only in PCR 7."""
        for reading, meaning in self.of(Kind.MOK):
            if meaning.proven and meaning.variable is not None:
                content = meaning.variable.data
                keys = owners(content) if efi.holds_signature_lists(content) else (content.hex(),)
                yield escape(f"{meaning.subject}: {'; '.join(keys) or 'empty'}", MAX_LINE)
            else:
                yield f"{meaning.subject}: {self._digest(reading)}"

    def disk_guid(self) -> str | None:
        """The GUID of the first partition table."""
        tables = list(self._tables())
        return str(tables[0].disk_guid) if tables else None

    def partitions(self) -> Iterator[Partition]:
        """All partitions of all measured tables."""
        for table in self._tables():
            for one in table.partitions:
                yield Partition(
                    name=escape(one.name, MAX_LINE), type=str(one.type_guid), guid=str(one.guid)
                )

    def _tables(self) -> Iterator[gpt.MeasuredTable]:
        for reading, _ in self.of(Kind.PARTITIONS):
            try:
                yield gpt.parse_event(reading.event.data)
            except FormatError:
                continue

    def boot_options(self) -> Iterator[str]:
        """Boot variables in words; their names are proven only where the whole event is."""
        for _, meaning in self.of(Kind.BOOT_VARIABLE):
            if meaning.variable is not None:
                yield escape(
                    f"{meaning.subject}: {efi.boot_variable_text(meaning.variable)}", MAX_LINE
                )

    def claims(self, *kinds: Kind) -> Iterator[Claim]:
        """Events of these kinds whose words are not proven."""
        for reading, meaning in self.of(*kinds):
            if not meaning.proven:
                yield Claim(
                    event=reading.event.index,
                    pcr=reading.event.pcr,
                    digest=self._digest(reading),
                    untrusted_words=claimed_text(reading),
                )

    def _digest(self, reading: Reading) -> str:
        return reading.event.digests.get(self._bank, b"").hex()


def _authority(meaning: Meaning) -> str:
    if meaning.variable is None or not meaning.proven:
        return "not proven"
    return f"{authority(meaning.variable)} ({meaning.variable.name})"


def _facts(
    log: EventLog, bank: HashAlg, readings: tuple[Reading, ...]
) -> tuple[BootFacts | None, ContradictoryVariable | None]:
    try:
        return boot_facts.read(log, bank, readings), None
    except ContradictoryVariable as error:
        return None, error


def _problems(
    log: EventLog,
    bank: HashAlg,
    readings: tuple[Reading, ...],
    contradiction: ContradictoryVariable | None,
) -> Iterator[Problem]:
    """Faults of grammar, other types, edited data, contradictions.

    Registers of a CCEL follow other rules.
    """
    faults = [] if log.format == "ccel" else [*grammar.problems(log, bank, shipped())]
    faults += [fault for reading in readings if (fault := retyped(reading)) is not None]
    for found in faults:
        yield Problem(code=found.code, message=str(found), event=found.index)
    for reading in readings:
        if edited(reading, bank):
            name = EventType(reading.event.type).name
            lie = EditedData(f"the data of this {name} is not what was measured")
            yield Problem(code=lie.code, message=str(lie), event=reading.event.index)
    if contradiction is not None:
        yield Problem(code=contradiction.code, message=str(contradiction), event=None)
