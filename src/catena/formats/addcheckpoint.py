r"""What a log sends to a witness, and the two texts it gets back (C2SP tlog-witness).

::

    old 20852014                       size of the tree that the witness cosigned last
    <base64 hash>                      consistency proof from there, 0 to 63 lines
                                       (empty line)
    example.com/behind-the-sofa        the checkpoint: a signed note
    …

Answers: 200 with signature lines (``note.parse_signatures``), 409 with the size that the
witness has, in decimal and a newline. Sizes have no zeros in front, hashes one spelling.
"""

from __future__ import annotations

from dataclasses import dataclass

from catena.errors import FormatError
from catena.formats import note
from catena.formats.note import Checkpoint, Note

MAX_PROOF = 63
MAX_REQUEST = 128 * 1024
"""Bytes: a proof, a checkpoint, and more signatures than logs have, post-quantum ones too."""
SIZE_TYPE = "text/x.tlog.size"
MAX_SIZE_ANSWER = 20
_OLD = "old "
_HASH_LINE = 45
_MAX_HEAD = len(_OLD) + 20 + MAX_PROOF * _HASH_LINE


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """One request: *untrusted* until the note's signatures and the proof are verified."""

    old_size: int
    proof: tuple[bytes, ...]
    signed: Note
    checkpoint: Checkpoint

    def encode(self) -> bytes:
        """The request's body; ``parse`` gives it back."""
        lines = (f"{_OLD}{self.old_size}", *map(note.encode_base64, self.proof), "")
        return "".join(f"{line}\n" for line in lines).encode() + self.signed.encode().encode()


def parse(data: bytes) -> AddCheckpoint:
    """Read a request's body. Raises ``FormatError``."""
    if len(data) > MAX_REQUEST:
        raise FormatError(
            "request is too large", expected=f"at most {MAX_REQUEST}", got=f"{len(data)}"
        )
    end = data.find(b"\n\n", 0, _MAX_HEAD + 2)
    if end < 0:
        raise FormatError("request has no empty line after its proof", offset=min(len(data), 80))
    old_size, proof = _parse_head(data[:end])
    try:
        signed = note.parse(data[end + 2 :])
        checkpoint = note.parse_checkpoint(signed.text)
    except FormatError as error:
        raise FormatError(
            error.message, offset=end + 2 + error.offset, expected=error.expected, got=error.got
        ) from error
    return AddCheckpoint(old_size, proof, signed, checkpoint)


def parse_size_answer(data: bytes) -> int:
    """Read the size in a 409 answer. Raises ``FormatError``."""
    if len(data) > MAX_SIZE_ANSWER or not data.endswith(b"\n"):
        raise FormatError("not a size and a newline", got=f"{len(data)} bytes")
    return note.parse_size(data[:-1].decode("latin-1"), "size")


def size_answer(size: int) -> bytes:
    """The body of a 409 answer."""
    return f"{size}\n".encode()


def _parse_head(head: bytes) -> tuple[int, tuple[bytes, ...]]:
    """The lines in front of the empty one; their base64 and digits are ASCII."""
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError("request does not begin in ASCII", offset=error.start) from error
    if not first.startswith(_OLD):
        raise FormatError("request does not begin with the old size", expected="old N")
    old_size = note.parse_size(first.removeprefix(_OLD), "old size", len(_OLD))
    if len(lines) > MAX_PROOF:
        raise FormatError(
            "proof has too many hashes", expected=f"at most {MAX_PROOF}", got=f"{len(lines)}"
        )
    offset = len(first) + 1
    proof = []
    for line in lines:
        proof.append(note.parse_hash(line, "hash of the proof", offset))
        offset += len(line) + 1
    return old_size, tuple(proof)
