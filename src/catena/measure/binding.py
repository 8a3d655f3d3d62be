"""How much of an event its digest proves.

Only what is hashed is known: an event's data is true exactly as far as it hashes to the digest
that was replayed. The constructions below are the ones that firmware and boot loaders use;
anything else is *opaque* and says nothing but its digest (TRUST, attestation step g).
"""

from __future__ import annotations

from enum import Enum

from catena.errors import FormatError
from catena.formats import efi
from catena.formats.tcglog import Event
from catena.ids import HashAlg

GRUB_PCR = 8
UKI_PCR = 11
_BOOT_VARIABLE_PCRS = frozenset({1, 5})
"""Boot variables belong into PCR 1; the firmware of older laptops measures them into PCR 5."""

_MAX_SECTION_NAME = 64


class Binding(Enum):
    """What the digest of an event covers."""

    WHOLE = "whole"
    """The event data, byte for byte."""
    SECTION_NAME = "section-name"
    """The data read as text, which systemd-stub hashes in ASCII with NUL (UKI, PCR 11)."""
    CONTENT = "content"
    """Not quite the data: a boot variable's value without its name (PCR 1, 5), a GRUB line without
    its kind, an old systemd-boot's line and the byte it forgot to log (PCR 8). ``covered``
    tells what was hashed; the rest is *untrusted*."""
    NONE = "none"
    """Nothing of the data."""


def binding(event: Event, bank: HashAlg) -> Binding:
    """What the digest of ``event`` in ``bank`` covers."""
    return covered(event, bank)[0]


def covered(event: Event, bank: HashAlg) -> tuple[Binding, bytes]:
    """What the digest of ``event`` covers; of a ``CONTENT`` event also the bytes."""
    digest = event.digests.get(bank)
    if digest is None:
        return Binding.NONE, b""
    if bank.digest(event.data) == digest:
        return Binding.WHOLE, b""
    return partly_covered(event, bank, digest)


def partly_covered(event: Event, bank: HashAlg, digest: bytes) -> tuple[Binding, bytes]:
    """As ``covered``, if ``digest`` is not that of the whole data."""
    if event.pcr == UKI_PCR:
        name = section_name(event.data)
        if name and bank.digest(name.encode() + b"\0") == digest:
            return Binding.SECTION_NAME, b""
    for content in _partial_contents(event):
        if content and bank.digest(content) == digest:
            return Binding.CONTENT, content
    return Binding.NONE, b""


def is_bound(event: Event, bank: HashAlg) -> bool:
    """True if the digest covers the event's data or, as ``binding`` says, part of it."""
    return binding(event, bank) is not Binding.NONE


def section_name(data: bytes) -> str:
    """The ASCII text that ``data`` spells in UTF-16 with or without NUL, or an empty string."""
    if len(data) > 2 * _MAX_SECTION_NAME:
        return ""
    text = data.decode("utf-16-le", "replace").removesuffix("\0")
    return text if text.isascii() and text.isprintable() else ""


def _partial_contents(event: Event) -> tuple[bytes, ...]:
    """What may have been hashed of the data.

    GRUB's kind ends in a colon, and its line in no NUL, since 2.04; before that it ends in a
    blank, and the NUL of a command is hashed, too, that of a kernel's line is not. systemd-boot
    before 251 logged its UTF-16 line one byte shorter than it hashed it.
    """
    if event.pcr == GRUB_PCR:
        line = event.data.partition(b" ")[2]
        grub = (event.data.partition(b": ")[2].rstrip(b"\0"), line, line.rstrip(b"\0"))
        return (*grub, event.data + b"\0") if len(event.data) % 2 else grub
    if event.pcr not in _BOOT_VARIABLE_PCRS:
        return ()
    try:
        return (efi.parse_variable(event.data).data,)
    except FormatError:
        return ()
