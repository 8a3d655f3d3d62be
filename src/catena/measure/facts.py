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
from collections.abc import Iterator
from dataclasses import dataclass

from catena.errors import FormatError, Refusal
from catena.formats import efi
from catena.formats.tcglog import Event, EventLog, EventType
from catena.ids import HashAlg
from catena.measure.binding import UKI_PCR, Binding, binding, is_bound, section_name
from catena.measure.describe import describe
from catena.measure.escape import escape
from catena.measure.grammar import separator_digests
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

    ``variables`` maps a PCR 7 variable to the SHA-256 of its content in hex; a variable under
    another GUID than its own is ``name-guid``. ``key_owners`` has a line per certificate or
    hash in PK, KEK, db and dbx. ``images`` are the PCR 4 digests in hex of everything started,
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
    variables: dict[str, str]
    key_owners: dict[str, tuple[str, ...]]
    images: tuple[str, ...]
    authorities: tuple[str, ...]
    uki_sections: tuple[UkiSection, ...]
    command_line: str | None
    extended: tuple[int, ...]


def read(log: EventLog, bank: HashAlg) -> BootFacts:
    """Read the facts. Raises ``ContradictoryVariable``."""
    events = [event for event in log.events if event.type != EventType.EV_NO_ACTION]
    values, authorities = _key_measurements(events, bank)
    return BootFacts(
        bank=bank,
        startup_locality=startup_locality(log),
        firmware_version=_firmware_version(events, bank),
        secure_boot=_mode(values, "SecureBoot"),
        setup_mode=_setup_mode(values),
        audit_mode=_mode(values, "AuditMode"),
        deployed_mode=_mode(values, "DeployedMode"),
        variables={name: hashlib.sha256(value).hexdigest() for name, value in values.items()},
        key_owners={name: owners(values[name]) for name in _KEY_VARIABLES if name in values},
        images=tuple(_images(events, bank)),
        authorities=authorities,
        uki_sections=tuple(_uki_sections(events, bank)),
        command_line=_command_line(events, bank),
        extended=tuple(sorted({event.pcr for event in events if bank in event.digests})),
    )


def _before_separator(events: list[Event], pcr: int, bank: HashAlg) -> Iterator[Event]:
    """The events of ``pcr`` up to its separator; all of them if it has none."""
    separators = separator_digests(bank)
    for event in events:
        if event.pcr == pcr:
            if event.digests.get(bank) in separators:
                return
            yield event


def _whole(event: Event, bank: HashAlg) -> bool:
    return binding(event, bank) is Binding.WHOLE


def _variable(event: Event) -> efi.VariableData | None:
    try:
        return efi.parse_variable(event.data)
    except FormatError:
        return None


def _variable_key(variable: efi.VariableData) -> str:
    """The plain name for a variable under the GUID that the specification gives it."""
    own = efi.IMAGE_SECURITY_DATABASE if variable.name in _DATABASES else efi.EFI_GLOBAL_VARIABLE
    name = escape(variable.name, _MAX_VERSION)
    return name if variable.guid == own else f"{name}-{variable.guid}"


def _key_measurements(
    events: list[Event], bank: HashAlg
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Secure Boot configuration by name, and the authorities, as measured into PCR 7.

    Configuration comes before the separator. Some firmware measures authorities there, too;
    theirs is a single EFI_SIGNATURE_DATA under a database's name, which is no signature list.
    """
    early = {event.index for event in _before_separator(events, KEY_PCR, bank)}
    values: dict[str, bytes] = {}
    authorities: list[str] = []
    opaque = False
    for event in events:
        if event.pcr != KEY_PCR:
            continue
        if not _whole(event, bank):
            opaque = opaque or event.index in early
            continue
        variable = _variable(event)
        if variable is None:
            continue
        key = _variable_key(variable)
        if event.index not in early or _is_authority(key, variable.data):
            authorities.append(f"{key}: {authority(variable)}")
        elif values.setdefault(key, variable.data) != variable.data:
            raise ContradictoryVariable(f"{key} was measured twice with different content")
    return {} if opaque else values, tuple(authorities)


def _is_authority(key: str, content: bytes) -> bool:
    if key in _MODES:
        return False
    try:
        efi.parse_signature_lists(content)
    except FormatError:
        return key not in {"PK", "KEK"}
    return False


def _mode(values: dict[str, bytes], name: str) -> bool | None:
    """A one-byte mode variable: on only if it is exactly 1."""
    value = values.get(name)
    return None if value is None else value == b"\1"


def _setup_mode(values: dict[str, bytes]) -> bool | None:
    """Setup mode is having no platform key (UEFI 2.10, 32.3); few measure ``SetupMode`` itself."""
    told = _mode(values, "SetupMode")
    platform_key = values.get("PK")
    return told if platform_key is None else not platform_key or bool(told)


def _firmware_version(events: list[Event], bank: HashAlg) -> str | None:
    """EV_S_CRTM_VERSION, if it is the first measurement of PCR 0: ASCII in UTF-16, else hex.

    Firmware that measures its CRTM's content before its version goes without.
    """
    first = next(_before_separator(events, CRTM_PCR, bank), None)
    if first is None or not _whole(first, bank):
        return None
    data = first.data[: 2 * _MAX_VERSION]
    text = data.decode("utf-16-le", "replace").rstrip("\0")
    return text if text.isascii() and text.isprintable() else data[:_MAX_BINARY].hex()


def _images(events: list[Event], bank: HashAlg) -> Iterator[str]:
    """Every PCR 4 digest that is neither a separator nor one of the firmware's own remarks."""
    remarks = separator_digests(bank) | {bank.digest(action) for action in _ACTIONS}
    for event in events:
        if event.pcr == IMAGE_PCR and bank in event.digests and event.digests[bank] not in remarks:
            yield event.digests[bank].hex()


def _uki_sections(events: list[Event], bank: HashAlg) -> Iterator[UkiSection]:
    """Sections that systemd-stub measured: in PCR 11 a bound name, then the content's digest.

    They come first and in pairs; what follows the last pair (boot phases) is none.
    """
    measured = [event for event in events if event.pcr == UKI_PCR and bank in event.digests]
    for name, content in zip(measured[::2], measured[1::2], strict=False):
        if binding(name, bank) is not Binding.SECTION_NAME:
            return
        yield UkiSection(section_name(name.data), content.digests[bank].hex())


def _command_line(events: list[Event], bank: HashAlg) -> str | None:
    """All that was measured into PCR 12, joined: whatever was added to the built-in line shows."""
    lines = [
        event.data.decode("utf-16-le", "replace").rstrip("\0")
        if _whole(event, bank)
        else f"opaque:{event.digests[bank].hex()}"
        for event in events
        if event.pcr == COMMAND_LINE_PCR and bank in event.digests
    ]
    return escape(" ".join(lines), MAX_TEXT) if lines else None
