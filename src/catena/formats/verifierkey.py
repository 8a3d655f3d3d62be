"""Verifier keys of signed notes (C2SP signed-note v1.0.0, "Verifier keys"), Ed25519 only.

``NAME+KEYID+base64(kind, 1 byte ‖ public key)``, where KEYID is the key id in eight lower-case
hex digits. Kind 0x01 signs a note's text, kind 0x04 cosigns a checkpoint (``cosignature``).
Other kinds are refused: who configures a key that cannot be verified would trust nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from catena.errors import FormatError
from catena.formats import note
from catena.formats.note import COSIGNATURE, ED25519

MAX_TEXT = 1024
KEY_SIZE = 32
_KEY_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A name and an Ed25519 public key (32 bytes) for one kind of signature."""

    name: str
    kind: int
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes in front of its signatures."""
        return note.key_id(self.name, self.public_key, self.kind)

    def encode(self) -> str:
        """The text; ``parse`` gives it back."""
        material = note.encode_base64(bytes([self.kind]) + self.public_key)
        return f"{self.name}+{self.key_id.hex()}+{material}"


def parse(text: str) -> VerifierKey:
    """Read a verifier key. Raises ``FormatError``."""
    if len(text) > MAX_TEXT:
        raise FormatError("verifier key is too long", expected=f"at most {MAX_TEXT} letters")
    name, first, rest = text.partition("+")  # base64 may hold a plus, a name may not
    digits, second, blob = rest.partition("+")
    if not note.is_key_name(name):
        raise FormatError("verifier key has no usable name")
    if not first or not second:
        raise FormatError("verifier key has not three parts", expected="NAME+KEYID+KEY")
    at = len(name.encode("utf-8", "replace")) + 1
    if not _KEY_ID.fullmatch(digits):
        raise FormatError("verifier key has no key id", offset=at, expected="8 hex digits")
    key = _parse_material(name, blob, at + len(digits) + 1)
    if key.key_id.hex() != digits:
        raise FormatError(
            "key id is of another key", offset=at, expected=key.key_id.hex(), got=digits
        )
    return key


def _parse_material(name: str, blob: str, offset: int) -> VerifierKey:
    material = note.decode_base64(blob, "verifier key", offset)
    if material[:1] not in {bytes([ED25519]), bytes([COSIGNATURE])}:
        raise FormatError(
            "verifier key is of a kind that is not verified here",
            offset=offset,
            expected=f"0x{ED25519:02x} or 0x{COSIGNATURE:02x}",
            got=f"0x{material[:1].hex()}",
        )
    if len(material) != 1 + KEY_SIZE:
        raise FormatError(
            "verifier key has a wrong length",
            offset=offset,
            expected=f"{1 + KEY_SIZE} bytes",
            got=f"{len(material)}",
        )
    return VerifierKey(name, material[0], material[1:])
