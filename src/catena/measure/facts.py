"""What a log proves about a boot, read only from data that its digests cover.

Nothing here rests on an event's type or on the order between PCRs, which no digest covers: an
event counts by its PCR, its place before or behind that PCR's separator, and its content. Facts
are facts only once ``measure.replay`` reached the quoted PCRs and ``measure.grammar`` agreed.
What a log does not prove is None or absent, so that a policy that asks for it fails closed.

Whoever sends the log can make any event opaque by editing its data. So a fact that another
event could contradict needs all its neighbours readable: one opaque event among the Secure Boot
variables leaves none of them proven, and an opaque one in PCR 12 shows in the command line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from catena.errors import Refusal
from catena.formats import efi
from catena.formats.tcglog import NO_ACTION, EventLog
from catena.ids import HashAlg
from catena.measure.binding import UKI_PCR, Binding, is_bound, section_name
from catena.measure.describe import describe
from catena.measure.escape import escape
from catena.measure.grammar import separator_digests
from catena.measure.reading import Reading, read_events
from catena.measure.replay import startup_locality
from catena.measure.signers import authority, owners

__all__ = ["BootFacts", "ContradictoryVariable", "UkiSection", "describe", "is_bound", "read"]

CRTM_PCR = 0
IMAGE_PCR = 4
KEY_PCR = 7
COMMAND_LINE_PCR = 12

MAX_TEXT = 4096
_MAX_VERSION = 128
_MAX_BINARY = 64
_MODES = frozenset({"SecureBoot", "SetupMode", "AuditMode", "DeployedMode"})
_KEY_VARIABLES = ("PK", "KEK", "db", "dbx")
_DATABASES = frozenset({"db", "dbx", "dbt", "dbr"})
_ACTIONS = frozenset(
    {
        b"Calling EFI Application from Boot Option",
        b"Returning from EFI Application from Boot Option",
    }
)


class ContradictoryVariable(Refusal):
    """Firmware measured one Secure Boot variable twice, with different content."""

    code = "contradictory-variable"
    remedy = "Keys changed during this boot. Boot again and attest; if it stays, do not admit it."


@dataclass(frozen=True, slots=True)
class UkiSection:
    """A section of the unified kernel image and the digest of its content in hex."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class BootFacts:
    """The facts of one boot.

    ``contents`` maps a PCR 7 variable to its content; a variable under another GUID than its own
    is ``name-guid``. ``images`` are the PCR 4 digests in hex of everything started,
    ``authorities`` who vouched for them. ``uki_sections`` are in measured order.
    ``command_line`` is everything measured into PCR 12, where the command line that overrides the
    built-in one goes: text, or ``opaque:`` and the digest. ``extended`` are the PCRs that this
    boot extended.
    """

    bank: HashAlg
    startup_locality: int | None
    firmware_version: str | None
    secure_boot: bool | None
    setup_mode: bool | None
    audit_mode: bool | None
    deployed_mode: bool | None
    contents: dict[str, bytes]
    images: tuple[str, ...]
    authorities: tuple[str, ...]
    uki_sections: tuple[UkiSection, ...]
    command_line: str | None
    extended: tuple[int, ...]

    @property
    def variables(self) -> dict[str, str]:
        """PCR 7 variables by name, with the SHA-256 of their content in hex."""
        return {name: hashlib.sha256(value).hexdigest() for name, value in self.contents.items()}

    @property
    def key_owners(self) -> dict[str, tuple[str, ...]]:
        """A line for each certificate or hash in PK, KEK, db and dbx."""
        names = (name for name in _KEY_VARIABLES if name in self.contents)
        return {name: owners(self.contents[name]) for name in names}


def read(log: EventLog, bank: HashAlg, readings: tuple[Reading, ...] | None = None) -> BootFacts:
    """Read the facts; ``readings`` are the log's, if they are there already.

    Raises ``ContradictoryVariable``.
    """
    told = read_events(log, bank) if readings is None else readings
    events = [one for one in told if one.event.type != NO_ACTION]
    values, authorities = _key_measurements(events, bank)
    return BootFacts(
        bank=bank,
        startup_locality=startup_locality(log),
        firmware_version=_firmware_version(events, bank),
        secure_boot=_mode(values, "SecureBoot"),
        setup_mode=_setup_mode(values),
        audit_mode=_mode(values, "AuditMode"),
        deployed_mode=_mode(values, "DeployedMode"),
        contents=values,
        images=tuple(_images(events, bank)),
        authorities=authorities,
        uki_sections=tuple(_uki_sections(events, bank)),
        command_line=_command_line(events, bank),
        extended=tuple(sorted({one.event.pcr for one in events if bank in one.event.digests})),
    )


def before_separator(readings: Iterable[Reading], pcr: int, bank: HashAlg) -> Iterator[Reading]:
    """What was measured into ``pcr`` up to its separator; all of it if there is none."""
    separators = separator_digests(bank)
    for reading in readings:
        if reading.event.pcr == pcr:
            if reading.event.digests.get(bank) in separators:
                return
            yield reading


def variable_key(variable: efi.VariableData) -> str:
    """The plain name for a variable under the GUID that the specification gives it."""
    return _key(variable.name, variable.guid)


@lru_cache(maxsize=256)
def _key(name: str, guid: UUID) -> str:
    """Cached, because the same few variables are asked for by facts, story and comparison."""
    own = efi.IMAGE_SECURITY_DATABASE if name in _DATABASES else efi.EFI_GLOBAL_VARIABLE
    shown = escape(name, _MAX_VERSION)
    return shown if guid == own else f"{shown}-{guid}"


def _key_measurements(
    readings: list[Reading], bank: HashAlg
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Secure Boot configuration by name, and the authorities, as measured into PCR 7.

    Configuration comes before the separator. Some firmware measures authorities there, too;
    theirs is a single EFI_SIGNATURE_DATA under a database's name, which is no signature list.
    """
    early = {one.event.index for one in before_separator(readings, KEY_PCR, bank)}
    values: dict[str, bytes] = {}
    authorities: list[str] = []
    opaque = False
    for reading in readings:
        event = reading.event
        if event.pcr != KEY_PCR:
            continue
        if not reading.whole:
            opaque = opaque or event.index in early
            continue
        variable = reading.variable
        if variable is None:
            continue
        key = variable_key(variable)
        if event.index not in early or is_authority(key, variable.data):
            authorities.append(f"{key}: {authority(variable)}")
        elif values.setdefault(key, variable.data) != variable.data:
            raise ContradictoryVariable(f"{key} was measured twice with different content")
    return {} if opaque else values, tuple(authorities)


def is_authority(key: str, content: bytes) -> bool:
    """Whether a PCR 7 variable in front of the separator is what vouched for an image."""
    if key in _MODES or key in {"PK", "KEK"}:
        return False
    return not efi.holds_signature_lists(content)


def _mode(values: dict[str, bytes], name: str) -> bool | None:
    """A one-byte mode variable: on only if it is exactly 1."""
    value = values.get(name)
    return None if value is None else value == b"\1"


def _setup_mode(values: dict[str, bytes]) -> bool | None:
    """Setup mode is having no platform key (UEFI 2.10, 32.3); few measure ``SetupMode`` itself."""
    told = _mode(values, "SetupMode")
    platform_key = values.get("PK")
    return told if platform_key is None else not platform_key or bool(told)


def _firmware_version(readings: list[Reading], bank: HashAlg) -> str | None:
    """EV_S_CRTM_VERSION, if it is the first measurement of PCR 0: ASCII in UTF-16, else hex.

    Firmware that measures its CRTM's content before its version goes without.
    """
    first = next(before_separator(readings, CRTM_PCR, bank), None)
    if first is None or not first.whole:
        return None
    data = first.event.data[: 2 * _MAX_VERSION]
    text = data.decode("utf-16-le", "replace").rstrip("\0")
    return text if text.isascii() and text.isprintable() else data[:_MAX_BINARY].hex()


def _images(readings: list[Reading], bank: HashAlg) -> Iterator[str]:
    """Every PCR 4 digest that is neither a separator nor one of the firmware's own remarks."""
    remarks = separator_digests(bank) | {bank.digest(action) for action in _ACTIONS}
    for reading in readings:
        digest = reading.event.digests.get(bank)
        if reading.event.pcr == IMAGE_PCR and digest is not None and digest not in remarks:
            yield digest.hex()


def _uki_sections(readings: list[Reading], bank: HashAlg) -> Iterator[UkiSection]:
    """Sections that systemd-stub measured: in PCR 11 a bound name, then the content's digest.

    They come first and in pairs; what follows the last pair (boot phases) is none.
    """
    measured = [one for one in readings if one.event.pcr == UKI_PCR and bank in one.event.digests]
    for name, content in zip(measured[::2], measured[1::2], strict=False):
        if name.binding is not Binding.SECTION_NAME:
            return
        yield UkiSection(section_name(name.event.data), content.event.digests[bank].hex())


def _command_line(readings: list[Reading], bank: HashAlg) -> str | None:
    """All that was measured into PCR 12, joined: whatever was added to the built-in line shows."""
    lines = [
        one.event.data.decode("utf-16-le", "replace").rstrip("\0")
        if one.whole
        else f"opaque:{one.event.digests[bank].hex()}"
        for one in readings
        if one.event.pcr == COMMAND_LINE_PCR and bank in one.event.digests
    ]
    return escape(" ".join(lines), MAX_TEXT) if lines else None
