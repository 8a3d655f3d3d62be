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

CONFIG_PCR = 1
GRUB_PCR = 8
UKI_PCR = 11
_MAX_SECTION_NAME = 64


class Binding(Enum):
    """What the digest of an event covers."""

    WHOLE = "whole"
    """The event data, byte for byte."""
    SECTION_NAME = "section-name"
    """The data read as text, which systemd-stub hashes in ASCII with NUL (UKI, PCR 11)."""
    CONTENT = "content"
    """Part of the data: a boot variable's value without its name (PCR 1), a GRUB line without
    its kind (PCR 8). The rest is *untrusted*."""
    NONE = "none"
    """Nothing of the data."""


def binding(event: Event, bank: HashAlg) -> Binding:
    """What the digest of ``event`` in ``bank`` covers."""
    digest = event.digests.get(bank)
    if digest is None:
        return Binding.NONE
    if bank.digest(event.data) == digest:
        return Binding.WHOLE
    return partial_binding(event, bank, digest)


def partial_binding(event: Event, bank: HashAlg, digest: bytes) -> Binding:
    """What ``digest`` covers if it is not the whole data."""
    if event.pcr == UKI_PCR:
        name = section_name(event.data)
        if name and bank.digest(name.encode() + b"\0") == digest:
            return Binding.SECTION_NAME
    for content in _partial_contents(event):
        if content and bank.digest(content) == digest:
            return Binding.CONTENT
    return Binding.NONE


def is_bound(event: Event, bank: HashAlg) -> bool:
    """True if the digest covers the event's data or, as ``binding`` says, part of it."""
    return binding(event, bank) is not Binding.NONE


def section_name(data: bytes) -> str:
    """The ASCII text that ``data`` spells in UTF-16 with or without NUL, or an empty string."""
    if len(data) > 2 * _MAX_SECTION_NAME:
        return ""
    text = data.decode("utf-16-le", "replace").removesuffix("\0")
    return text if text.isascii() and text.isprintable() else ""


def partial_content(event: Event) -> bytes:
    """The part of the data that is hashed where only a part is, or nothing."""
    return next(iter(_partial_contents(event)), b"")


def _partial_contents(event: Event) -> tuple[bytes, ...]:
    """What may have been hashed of the data. GRUB's kind ends in a colon, and its line in no NUL,
    since 2.04; before that it ends in a blank and the NUL is hashed, too.
    """
    if event.pcr == GRUB_PCR:
        return event.data.partition(b": ")[2].rstrip(b"\0"), event.data.partition(b" ")[2]
    if event.pcr != CONFIG_PCR:
        return ()
    try:
        return (efi.parse_variable(event.data).data,)
    except FormatError:
        return ()
