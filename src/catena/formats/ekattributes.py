"""What an EK certificate says about its TPM: the TCG attributes in its subject alternative name.

TCG EK Credential Profile 2.5, clause 3.2.9: a directoryName with

==============  ====================  ===============================================
2.23.133.2.1    tpmManufacturer       ``id:`` and the vendor's four bytes in hex
2.23.133.2.2    tpmModel              the vendor's name for the part
2.23.133.2.3    tpmVersion            ``id:`` and the firmware's version in hex
==============  ====================  ===============================================

Text of one vendor's certificate: it counts for as much as the root that vouches for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from catena.formats import distinguished
from catena.formats.der import SEQUENCE, NotDer, children, whole
from catena.formats.distinguished import printable

MANUFACTURER, MODEL, VERSION = "2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"
MAX_VALUE = 64
_DIRECTORY_NAME = 0xA4
_ID = "id:"


@dataclass(frozen=True, slots=True)
class EkAttributes:
    """``vendor`` as in the TCG vendor id registry (``IFX``), ``version`` in decimal (``7.2``).

    What is not in the usual form is as the certificate has it; what is missing is empty.
    """

    vendor: str = ""
    model: str = ""
    version: str = ""


def read_ek_attributes(alternative_name: bytes) -> EkAttributes:
    """From the value of a subjectAltName (GeneralNames). Raises ``NotDer`` or ``BadName``."""
    names = whole(alternative_name)
    if names.tag != SEQUENCE:
        raise NotDer("not a subject alternative name", offset=0)
    found: dict[str, str] = {}
    for name in children(alternative_name, names):
        if name.tag == _DIRECTORY_NAME:
            for one in distinguished.attributes(alternative_name[name.body : name.end]):
                if found.setdefault(one.type, one.text) != one.text:
                    raise NotDer("an attribute of the TPM has two values", offset=name.start)
    return EkAttributes(
        vendor=_vendor(found.get(MANUFACTURER, "")),
        model=printable(found.get(MODEL, "").strip(), MAX_VALUE),
        version=_version(found.get(VERSION, "")),
    )


def dotted_version(value: int, size: int) -> str:
    """A firmware version of ``size`` bytes as the numbers that its 16-bit words are."""
    raw = value.to_bytes(size, "big")
    return ".".join(str(int.from_bytes(raw[at : at + 2], "big")) for at in range(0, size, 2))


def _vendor(text: str) -> str:
    """TPM_PT_MANUFACTURER: four characters, the last ones NUL or space."""
    raw = _hex(text)
    letters = raw.rstrip(b"\0 ")
    if len(raw) == 4 and letters and all(0x20 < byte < 0x7F for byte in letters):
        return letters.decode("ascii")
    return printable(text, MAX_VALUE)


def _version(text: str) -> str:
    raw = _hex(text)
    if len(raw) in {4, 8}:
        return dotted_version(int.from_bytes(raw, "big"), len(raw))
    return printable(text, MAX_VALUE)


def _hex(text: str) -> bytes:
    """The bytes behind ``id:``, or none."""
    digits = text.removeprefix(_ID)
    if digits == text or not digits.isascii() or not digits.isalnum():
        return b""
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""
