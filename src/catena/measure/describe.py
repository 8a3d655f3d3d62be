"""One human line per event, in which proven and merely claimed words cannot be confused.

Words behind ``untrusted:`` are not covered by the event's digest: the sender chose them. That
goes for the event's type, too, so a proven line is read from the data alone.
"""

from __future__ import annotations

from collections.abc import Callable

from catena.errors import FormatError
from catena.formats import efi, gpt
from catena.formats.tcglog import Event, EventType, event_type_name
from catena.ids import HashAlg
from catena.measure.binding import Binding, covered, section_name
from catena.measure.escape import escape
from catena.measure.reading import Reading
from catena.measure.signers import UNREADABLE, authority, owners

MAX_LINE = 200
_MAX_HEX = 16
_TAG_HEADER = 8
_SEPARATOR = bytes(4)


def describe(event: Event, bank: HashAlg = HashAlg.SHA256) -> str:
    """What ``event`` is, escaped and bounded."""
    return describe_reading(Reading(event, *covered(event, bank)))


def describe_reading(reading: Reading) -> str:
    """As ``describe``, of an event whose digest was looked at before."""
    event = reading.event
    match reading.binding:
        case Binding.WHOLE:
            line = _proven(event.data)
        case Binding.SECTION_NAME:
            line = f"UKI section {section_name(event.data)}"
        case Binding.CONTENT:
            line = f"{_text(reading.content)}, untrusted: {_claimed(event)}"
        case Binding.NONE:
            line = f"untrusted: {_claimed(event)}"
    return escape(line, MAX_LINE)


def _proven(data: bytes) -> str:
    """What bound data is, whatever type its event was given."""
    if data == _SEPARATOR:
        return "separator"
    if data.startswith(gpt.SIGNATURE):
        return f"partition table, {len(data)} bytes"
    try:
        return _variable(data)
    except FormatError:
        return _text(data)


def _claimed(event: Event) -> str:
    """What data that no digest covers says, read as its type wants it."""
    read = _READERS.get(event.type, _text)
    try:
        words = read(event.data)
    except FormatError:
        words = _text(event.data)
    return f"{event_type_name(event.type)} {words}"


def _variable(data: bytes) -> str:
    variable = efi.parse_variable(data)
    if not variable.name.isprintable() or not variable.name:
        raise FormatError("not the name of a variable")
    if variable.guid == efi.EFI_GLOBAL_VARIABLE and variable.name not in {"PK", "KEK"}:
        return f"variable {variable.name} = {_text(variable.data)}"
    keys = owners(variable.data)
    if keys == (UNREADABLE,):
        return f"authority {variable.name}: {authority(variable)}"
    return f"variable {variable.name} with {len(keys)} keys: {'; '.join(keys)}"


def _image(data: bytes) -> str:
    return efi.device_path_text(efi.parse_image_load(data).device_path) or "from memory"


def _tag(data: bytes) -> str:
    return f"{int.from_bytes(data[:4], 'little'):#010x} {_text(data[_TAG_HEADER:])}"


def _text(data: bytes) -> str:
    """``data`` as quoted text if it is ASCII, plain or in UTF-16, else the beginning in hex."""
    if not data:
        return "nothing"
    for encoding in ("ascii", "utf-16-le"):
        text = data[: 2 * MAX_LINE].decode(encoding, "replace").rstrip("\0")
        if text and text.isascii() and text.isprintable():
            return repr(text)
    more = "…" if len(data) > _MAX_HEX else ""
    return f"{data[:_MAX_HEX].hex()}{more}"


_READERS: dict[int, Callable[[bytes], str]] = {
    EventType.EV_EVENT_TAG: _tag,
    EventType.EV_EFI_VARIABLE_DRIVER_CONFIG: _variable,
    EventType.EV_EFI_VARIABLE_BOOT: _variable,
    EventType.EV_EFI_VARIABLE_BOOT2: _variable,
    EventType.EV_EFI_VARIABLE_AUTHORITY: _variable,
    EventType.EV_EFI_BOOT_SERVICES_APPLICATION: _image,
    EventType.EV_EFI_BOOT_SERVICES_DRIVER: _image,
    EventType.EV_EFI_RUNTIME_SERVICES_DRIVER: _image,
}
