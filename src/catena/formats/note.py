r"""Signed notes and log checkpoints (C2SP signed-note v1.0.0, tlog-checkpoint v1.0.0).

=========  ==================================================================
text       UTF-8 lines, each ended by a newline, no other control characters
(blank)    one empty line, not signed
signatures ``— NAME SP base64(key id, 4 bytes ‖ signature)``, one per line
=========  ==================================================================

A signature covers the text with its last newline. The key id of an Ed25519 key is the first
four bytes of ``SHA-256(NAME ‖ 0x0A ‖ 0x01 ‖ public key)``: a hint for the reader, no proof.

A checkpoint is a note whose text is the log's origin, its size in decimal, the base64 of its
root hash, and optional extension lines. Parsing is strict: whatever would not be written
the same way again is refused. Nothing here verifies a signature; ``audit.checkpoint`` and
``audit.cosigned`` do.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from dataclasses import dataclass

from catena.errors import FormatError

MAX_NOTE = 1_000_000
MAX_SIGNATURES = 100
MAX_TREE_SIZE = 2**63 - 1
HASH_SIZE = 32
ED25519 = 0x01
COSIGNATURE = 0x04
"""Kinds of signatures (signed-note, "Signature types"): by a log itself, and by a cosigner."""
KEY_ID_SIZE = 4

_SIGNATURE_PREFIX = "— "
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: *untrusted* until verified under a key of this name and id."""

    name: str
    key_id: bytes
    signature: bytes

    def encode(self) -> str:
        """The line, without its newline."""
        blob = encode_base64(self.key_id + self.signature)
        return f"{_SIGNATURE_PREFIX}{self.name} {blob}"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and the signatures under it."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> str:
        """The whole note; ``parse`` gives it back."""
        return self.text + "\n" + "".join(f"{one.encode()}\n" for one in self.signatures)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says about itself: *untrusted* until its note is verified."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def encode(self) -> str:
        """The note text."""
        root = encode_base64(self.root)
        return "".join(f"{line}\n" for line in (self.origin, self.size, root, *self.extensions))


def key_id(name: str, public_key: bytes, kind: int = ED25519) -> bytes:
    """The four bytes that stand before a signature (signed-note, "Signatures")."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:KEY_ID_SIZE]


def is_key_name(name: str) -> bool:
    """Whether a key may be called so: not empty, no spaces, no control characters, no plus."""
    return bool(name) and not any(
        letter == "+" or letter.isspace() or unicodedata.category(letter).startswith("C")
        for letter in name
    )


def parse(data: bytes) -> Note:
    """Read a note. Raises ``FormatError``."""
    if len(data) > MAX_NOTE:
        raise FormatError("note is too large", expected=f"at most {MAX_NOTE}", got=f"{len(data)}")
    try:
        note = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("note is not UTF-8", offset=error.start) from error
    control = _CONTROL.search(data)
    if control is not None:
        at = control.start()
        raise FormatError("note has a control character", offset=at, got=f"0x{data[at]:02x}")
    body, gap, block = note.rpartition("\n\n")
    if not gap or not block.endswith("\n"):
        raise FormatError("note has no signature block", offset=len(data))
    text = body + "\n"
    return Note(text=text, signatures=_parse_block(block, len(text.encode()) + 1))


def parse_signatures(data: bytes) -> tuple[NoteSignature, ...]:
    """Read signature lines that stand alone, as a witness answers them. Raises ``FormatError``."""
    if len(data) > MAX_NOTE:
        raise FormatError("signatures are too large", expected=f"at most {MAX_NOTE}")
    try:
        block = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("signatures are not UTF-8", offset=error.start) from error
    if not block.endswith("\n"):
        raise FormatError("signatures do not end in a newline", offset=len(data))
    return _parse_block(block, 0)


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a note as a checkpoint. Raises ``FormatError``."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() != "":
        raise FormatError("checkpoint has too few lines", offset=len(text.encode()))
    origin, size, root, *extensions = lines
    if not origin:
        raise FormatError("checkpoint has no origin")
    offset = len(origin.encode()) + 1
    count = parse_size(size, "checkpoint size", offset)
    offset += len(size) + 1
    digest = parse_hash(root, "checkpoint root", offset)
    if not all(extensions):
        raise FormatError("checkpoint has an empty extension line", offset=offset + len(root) + 1)
    return Checkpoint(origin=origin, size=count, root=digest, extensions=tuple(extensions))


def parse_size(text: str, what: str, offset: int = 0) -> int:
    """A tree size: decimal without sign, zeros in front or other letters. Raises ``FormatError``."""
    if not _SIZE.fullmatch(text) or int(text) > MAX_TREE_SIZE:
        raise FormatError(f"{what} is not a plain decimal number", offset=offset)
    return int(text)


def parse_hash(text: str, what: str, offset: int = 0) -> bytes:
    """A SHA-256 hash in base64, in its one spelling. Raises ``FormatError``."""
    digest = decode_base64(text, what, offset)
    if len(digest) != HASH_SIZE:
        raise FormatError(
            f"{what} has a wrong length",
            offset=offset,
            expected=f"{HASH_SIZE} bytes",
            got=f"{len(digest)}",
        )
    return digest


def _parse_block(block: str, offset: int) -> tuple[NoteSignature, ...]:
    """Signature lines, each with its newline; ``offset`` is where they begin."""
    count = block.count("\n")
    if count > MAX_SIGNATURES:
        raise FormatError(
            "note has too many signatures", expected=f"at most {MAX_SIGNATURES}", got=f"{count}"
        )
    signatures = []
    for line in block[:-1].split("\n"):
        signatures.append(_parse_signature(line, offset))
        offset += len(line.encode()) + 1
    return tuple(signatures)


def _parse_signature(line: str, offset: int) -> NoteSignature:
    name, separator, blob = line.removeprefix(_SIGNATURE_PREFIX).partition(" ")
    if not line.startswith(_SIGNATURE_PREFIX) or not separator or not is_key_name(name):
        raise FormatError("not a signature line", offset=offset)
    signature = decode_base64(blob, "signature", offset)
    if len(signature) <= KEY_ID_SIZE:
        raise FormatError("signature is too short", offset=offset)
    return NoteSignature(name, signature[:KEY_ID_SIZE], signature[KEY_ID_SIZE:])


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode()


def decode_base64(text: str, what: str = "text", offset: int = 0) -> bytes:
    """Standard base64 with padding, in its one canonical spelling."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:  # letters outside ASCII are one, too
        raise FormatError(f"{what} is not base64", offset=offset) from error
    if encode_base64(data) != text:
        raise FormatError(f"{what} is not canonical base64", offset=offset)
    return data
