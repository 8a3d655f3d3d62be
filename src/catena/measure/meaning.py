"""What each event of a firmware log measured: its subject, and how much of that is proven.

A meaning is read from PCR, place, and data that the digest covers, never from the event's type
alone. Where the data is only a description (an image's path, a file's name), the subject is what
the log *claims*; the digest is proven all the same, so a claimed subject is good for pairing the
events of two logs and for showing, and for nothing else.

Sources: TCG PC Client PFP 1.06, tables 9 and 27; systemd-stub(7), systemd-boot; GRUB
``grub-core/commands/tpm.c``; shim ``tpm.c``, ``mok.c``; Linux ``drivers/firmware/efi/libstub``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from catena.errors import FormatError
from catena.formats import efi, gpt
from catena.formats.tcglog import EventType, event_type_name
from catena.ids import HashAlg
from catena.measure.binding import Binding, section_name
from catena.measure.escape import escape
from catena.measure.facts import is_authority, variable_key
from catena.measure.grammar import separator_digests
from catena.measure.reading import Reading

MAX_SUBJECT = 160
MAX_TEXT = 4096

_LOAD_OPTIONS = 0x8F3B22ED
_INITRD = 0x8F3B22EC
_KEYS = frozenset({"PK", "KEK", "db", "dbx", "dbt", "dbr"})
_TAG_HEADER = 8
_GUID_SIZE = 16
_MAX_BINARY = 64
_KERNEL_LINES = (b"kernel_cmdline: ", b"grub_kernel_cmdline ")
_WINDOWS_LOG = b"WBCL"
_WINDOWS_PCRS = frozenset({11, 12, 13, 14})
_MOK = "Mok"


class Kind(StrEnum):
    """What sort of thing was measured."""

    SEPARATOR = "separator"
    ACTION = "action"
    FIRMWARE_VERSION = "firmware version"
    FIRMWARE = "firmware"
    TABLES = "tables"
    MODE = "mode"
    KEYS = "keys"
    AUTHORITY = "authority"
    BOOT_VARIABLE = "boot variable"
    VARIABLE = "variable"
    IMAGE = "image"
    PARTITIONS = "partition table"
    MOK = "machine owner keys"
    SBAT = "SBAT level"
    BOOT_LOADER_LINE = "boot loader command"
    KERNEL_LINE = "kernel line"
    BOOT_LOADER_FILE = "boot loader file"
    SECTION_NAME = "section name"
    SECTION = "section"
    PHASE = "phase"
    COMMAND_LINE = "command line"
    LOAD_OPTIONS = "load options"
    INITRD = "initrd"
    EXTENSION = "extension"
    WINDOWS = "Windows"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one event measured; ``subject`` pairs it with its like in another log.

    ``proven`` is true if the subject follows from data under the digest. ``text`` is the proven
    content of events that measure text; ``variable`` that of events that measure a variable.
    """

    kind: Kind
    subject: str
    proven: bool
    text: str | None = None
    variable: efi.VariableData | None = None


def meanings(readings: Iterable[Reading], bank: HashAlg) -> tuple[Meaning | None, ...]:
    """One meaning for each event; None for EV_NO_ACTION, which measures nothing."""
    return tuple(_Reader(bank).read(readings))


_WINDOWS = Meaning(Kind.WINDOWS, "Windows boot manager", proven=False)


class _Reader:
    """Goes through a log once; what a separator closed and which section was named is its state."""

    def __init__(self, bank: HashAlg) -> None:
        self._bank = bank
        self._separators = separator_digests(bank)
        self._closed: set[int] = set()
        self._begun = False
        self._images: dict[int, int] = {}
        self._section: str | None = None

    def read(self, readings: Iterable[Reading]) -> Iterator[Meaning | None]:
        for reading in readings:
            yield self._meaning(reading) if reading.extends else None

    def _meaning(self, reading: Reading) -> Meaning:
        pcr = reading.event.pcr
        if reading.event.digests.get(self._bank) in self._separators:
            self._closed.add(pcr)
            return Meaning(Kind.SEPARATOR, "separator", proven=True)
        if reading.whole and reading.event.data.startswith(gpt.SIGNATURE):
            return Meaning(Kind.PARTITIONS, "partition table", proven=True)
        if _is_windows(reading):
            return _WINDOWS
        if pcr == 0:
            return self._firmware(reading)
        if pcr == 7:
            return self._secure_boot(reading)
        if pcr in {4, 5} and reading.whole:
            return _plain(Kind.ACTION, reading)
        if pcr in {2, 4}:
            return self._image(reading)
        if pcr == 8:
            return self._boot_loader(reading)
        if pcr == 11:
            return self._unified_kernel(reading)
        later = _LATER.get(pcr)
        return later(reading) if later else _other(reading)

    def _firmware(self, reading: Reading) -> Meaning:
        """In PCR 0 the only text in UTF-16, and the only GUID, are the firmware's version."""
        first, self._begun = not self._begun, True
        if 0 not in self._closed and reading.whole:
            text = _version(reading.event.data, first=first)
            if text is not None:
                return Meaning(Kind.FIRMWARE_VERSION, "firmware version", proven=True, text=text)
        return Meaning(Kind.FIRMWARE, "firmware code", proven=reading.whole)

    def _boot_loader(self, reading: Reading) -> Meaning:
        """PCR 8: lines of GRUB, whose kind is its word only, or systemd-boot's line in UTF-16."""
        if not reading.bound:
            return Meaning(Kind.BOOT_LOADER_LINE, claimed_text(reading), proven=False)
        content = reading.event.data if reading.whole else reading.content
        text = _utf16(content) if content.endswith(b"\0\0") else None
        if text:
            return Meaning(Kind.COMMAND_LINE, "command line", proven=True, text=text)
        text = content.decode("utf-8", "replace").rstrip("\0")
        kind = Kind.KERNEL_LINE if reading.event.data.startswith(_KERNEL_LINES) else None
        return Meaning(
            kind or Kind.BOOT_LOADER_LINE,
            "kernel line" if kind else "boot loader command",
            proven=True,
            text=text,
        )

    def _secure_boot(self, reading: Reading) -> Meaning:
        variable = reading.variable
        if variable is None:
            return _other(reading)
        key = variable_key(variable)
        if variable.name == "SbatLevel":
            text = " ".join(variable.data.decode("ascii", "replace").rstrip("\0").split())
            return Meaning(Kind.SBAT, "SBAT level", reading.whole, text, variable)
        if variable.name.startswith(_MOK):
            return Meaning(Kind.MOK, key, reading.whole, None, variable)
        if 7 in self._closed or is_authority(key, variable.data):
            return Meaning(Kind.AUTHORITY, f"authority {key}", reading.whole, None, variable)
        kind = Kind.KEYS if key in _KEYS else Kind.MODE
        return Meaning(kind, key, reading.whole, None, variable)

    def _image(self, reading: Reading) -> Meaning:
        pcr = reading.event.pcr
        if not _claims_image(reading):
            return _other(reading)
        self._images[pcr] = number = self._images.get(pcr, 0) + 1
        what = "image" if pcr == 4 else "driver"
        return Meaning(Kind.IMAGE, f"{what} {number}", proven=False)

    def _unified_kernel(self, reading: Reading) -> Meaning:
        """In PCR 11 a bound name, then the digest of its content; boot phases follow as text."""
        if self._section is not None:
            name, self._section = self._section, None
            return Meaning(Kind.SECTION, name, proven=True)
        if reading.binding is Binding.SECTION_NAME:
            self._section = section_name(reading.event.data)
            return Meaning(Kind.SECTION_NAME, self._section, proven=True)
        is_phase = reading.whole and _words(reading.event.data)
        return _plain(Kind.PHASE, reading) if is_phase else _other(reading)


def _version(data: bytes, *, first: bool) -> str | None:
    """A firmware version as text or GUID; other forms count only as the first of PCR 0."""
    text = _utf16(data)
    if text is not None:
        return text
    if len(data) == _GUID_SIZE:
        return str(UUID(bytes_le=data))
    return (_words(data) or data[:_MAX_BINARY].hex()) if first else None


def _is_windows(reading: Reading) -> bool:
    """Windows measures tagged events (SIPA: tag u32, size u32, value) and the word WBCL.

    In PCR 11 it measures bare numbers, too, which only their type tells from other data.
    """
    data = reading.event.data
    if reading.event.pcr not in _WINDOWS_PCRS or not reading.whole:
        return False
    if reading.event.pcr == 11 and reading.event.type == EventType.EV_COMPACT_HASH:
        return len(data) == len(_WINDOWS_LOG)
    size = int.from_bytes(data[4:_TAG_HEADER], "little")
    return data == _WINDOWS_LOG or (len(data) > _TAG_HEADER and size == len(data) - _TAG_HEADER)


def _configuration(reading: Reading) -> Meaning:
    """PCR 1: boot variables by their content, tables and settings by their digest."""
    variable = reading.variable
    if variable is None:
        return Meaning(Kind.TABLES, "tables and settings", proven=False)
    name = escape(variable.name, MAX_SUBJECT)
    kind = Kind.BOOT_VARIABLE if variable.name.startswith("Boot") else Kind.VARIABLE
    return Meaning(kind, name, reading.whole, None, variable if reading.bound else None)


def _boot_variable(reading: Reading) -> Meaning:
    """PCR 5: older firmware measures boot variables here, by their content."""
    return _configuration(reading) if reading.bound else _other(reading)


def _kernel(reading: Reading) -> Meaning:
    """PCR 9: what Linux's EFI stub tags, and the files that GRUB opens."""
    tag = int.from_bytes(reading.event.data[:4], "little")
    if reading.event.type == EventType.EV_EVENT_TAG and tag in {_LOAD_OPTIONS, _INITRD}:
        kind = Kind.LOAD_OPTIONS if tag == _LOAD_OPTIONS else Kind.INITRD
        return Meaning(kind, kind.value, proven=False)
    return Meaning(Kind.BOOT_LOADER_FILE, claimed_text(reading), proven=False)


def _overrides(reading: Reading) -> Meaning:
    """PCR 12: a command line that overrides the built-in one; credentials and addons as files."""
    if reading.whole:
        text = reading.event.data.decode("utf-16-le", "replace").rstrip("\0")
        return Meaning(Kind.COMMAND_LINE, "command line", proven=True, text=text)
    return Meaning(Kind.EXTENSION, claimed_text(reading), proven=False)


def _extension(reading: Reading) -> Meaning:
    return Meaning(Kind.EXTENSION, claimed_text(reading), proven=reading.whole)


def _owner_keys(reading: Reading) -> Meaning:
    return Meaning(Kind.MOK, claimed_text(reading), proven=reading.whole)


def _plain(kind: Kind, reading: Reading) -> Meaning:
    text = _text(reading.event.data)
    return Meaning(kind, escape(text, MAX_SUBJECT) or kind.value, proven=True, text=text)


def _other(reading: Reading) -> Meaning:
    return Meaning(Kind.OTHER, claimed_text(reading), proven=False)


def _claims_image(reading: Reading) -> bool:
    """An image's digest is of the image; what the event says of it has the form of a load."""
    try:
        efi.parse_image_load(reading.event.data)
    except FormatError:
        return reading.event.type in _IMAGE_TYPES
    return True


def image_path(reading: Reading) -> str:
    """Where the log claims that an image was loaded from; *untrusted*."""
    try:
        path = efi.device_path_text(efi.parse_image_load(reading.event.data).device_path)
    except FormatError:
        return "unknown place"
    return escape(path, MAX_TEXT) or "memory"


def claimed_text(reading: Reading) -> str:
    """What an event's data says of itself, or else its type; *untrusted*."""
    words = _words(reading.event.data) or event_type_name(reading.event.type)
    return escape(words, MAX_SUBJECT)


def _utf16(data: bytes) -> str | None:
    """ASCII text in UTF-16, which may be empty, or None. Ends in one NUL or none."""
    if len(data) % 2:
        return None
    text = data[: 2 * MAX_TEXT].decode("utf-16-le", "replace").removesuffix("\0")
    return text if text.isascii() and (text.isprintable() or not text) else None


def _text(data: bytes) -> str:
    """Text, or the beginning in hex."""
    return _words(data) or data[:16].hex()


def _words(data: bytes) -> str:
    """Printable text in ASCII or UTF-16, or nothing. Old boot loaders count half a NUL too many."""
    for encoding in ("ascii", "utf-16-le"):
        whole = data[: min(len(data), 2 * MAX_TEXT) & ~1] if encoding != "ascii" else data
        text = whole[: 2 * MAX_TEXT].decode(encoding, "replace").rstrip("\0")
        if text and text.isascii() and text.isprintable():
            return text
    return ""


_IMAGE_TYPES = frozenset(
    {
        EventType.EV_EFI_BOOT_SERVICES_APPLICATION,
        EventType.EV_EFI_BOOT_SERVICES_DRIVER,
        EventType.EV_EFI_RUNTIME_SERVICES_DRIVER,
    }
)
_LATER = {
    1: _configuration,
    5: _boot_variable,
    9: _kernel,
    12: _overrides,
    13: _extension,
    14: _owner_keys,
}
