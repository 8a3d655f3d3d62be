"""A second reader of catena's logs, written from the specifications alone.

It shares no code with ``src/``: only the standard library and an Ed25519 verification. Whoever
does not want to believe catena about its own log may run it::

    python tests/audit/independent_reader.py FOLDER LOG.PUB [--witness KEY]... [--quorum N]
        [--cosigned FILE]

References: C2SP signed-note, tlog-checkpoint, tlog-tiles, tlog-cosignature; RFC 6962 section 2.1;
DSSE v1.0 (PAE); in-toto Statement v1. The tree is built the slow way, straight from RFC 6962's
recursive definition, so that it has nothing in common with the incremental one.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

EM_DASH = "\u2014"


class Wrong(Exception):
    """The log is not what it says it is."""


# RFC 6962, section 2.1 ----------------------------------------------------------------------


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = tree_hash(leaves[:split]), tree_hash(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_from_path(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
    """The root that an audit path leads to, by the recursion of section 2.1.1, top down."""
    if size == 1:
        if path:
            raise Wrong("an inclusion proof is too long")
        return leaf
    if not path:
        raise Wrong("an inclusion proof is too short")
    split = 1
    while split * 2 < size:
        split *= 2
    *rest, top = path
    if index < split:
        return hashlib.sha256(b"\x01" + root_from_path(index, split, leaf, rest) + top).digest()
    below = root_from_path(index - split, size - split, leaf, rest)
    return hashlib.sha256(b"\x01" + top + below).digest()


# Signed notes, checkpoints, cosignatures ------------------------------------------------------


def key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def open_note(content: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Text, and of each signature its name, key id and bytes."""
    note = content.decode()
    at = note.rindex("\n\n")
    text, lines = note[: at + 1], note[at + 2 :].removesuffix("\n").split("\n")
    signatures = []
    for line in lines:
        dash, name, blob = line.split(" ")
        raw = base64.b64decode(blob, validate=True)
        if dash != EM_DASH or len(raw) < 5:
            raise Wrong("a signature line is not one")
        signatures.append((name, raw[:4], raw[4:]))
    return text, signatures


def read_checkpoint(content: bytes, public: bytes) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint that the log's key signed."""
    text, signatures = open_note(content)
    origin, size, root = text.split("\n")[:3]
    if str(int(size)) != size:
        raise Wrong("the size is not in plain decimal")
    wanted = (origin, key_id(origin, 0x01, public))
    own = [signature for name, kid, signature in signatures if (name, kid) == wanted]
    if not own:
        raise Wrong("the log's key did not sign the checkpoint")
    for signature in own:
        check(public, signature, text.encode(), "the checkpoint's signature does not hold")
    return origin, int(size), base64.b64decode(root, validate=True)


def cosigners_of(content: bytes, vkeys: list[str]) -> list[str]:
    """Names of the witnesses whose cosignatures hold."""
    text, signatures = open_note(content)
    names = []
    for vkey in vkeys:
        name, kid, blob = vkey.split("+", 2)
        material = base64.b64decode(blob, validate=True)
        public = material[1:]
        if material[0] != 0x04 or key_id(name, 0x04, public).hex() != kid:
            raise Wrong("a witness's key is not one")
        for signer, signer_id, signature in signatures:
            if (signer, signer_id.hex()) == (name, kid):
                (when,) = struct.unpack(">Q", signature[:8])
                message = f"cosignature/v1\ntime {when}\n{text}".encode()
                check(public, signature[8:], message, f"{name}'s cosignature does not hold")
                names.append(name)
                break
    return names


def check(public: bytes, signature: bytes, message: bytes, otherwise: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        raise Wrong(otherwise) from None


# tlog-tiles ---------------------------------------------------------------------------------


def tile_path(kind: str, index: int, width: int) -> str:
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
    return f"tile/{kind}/{path}" + ("" if width == 256 else f".p/{width}")


def read_bundle(folder: Path, index: int, width: int) -> list[bytes]:
    content = (folder / tile_path("entries", index, width)).read_bytes()
    entries, at = [], 0
    while at < len(content):
        (length,) = struct.unpack_from(">H", content, at)
        entries.append(content[at + 2 : at + 2 + length])
        at += 2 + length
    if at != len(content) or len(entries) != width:
        raise Wrong(f"entry bundle {index} does not hold {width} entries")
    return entries


def check_hash_tiles(folder: Path, leaves: list[bytes]) -> None:
    """Every tile of every level holds the roots of 256**level leaves each."""
    level, row = 0, leaves
    while row:
        for start in range(0, len(row), 256):
            hashes = row[start : start + 256]
            path = tile_path(str(level), start // 256, len(hashes))
            if (folder / path).read_bytes() != b"".join(hashes):
                raise Wrong(f"{path} does not hold the hashes of its entries")
        row = [tree_hash(row[at : at + 256]) for at in range(0, len(row) // 256 * 256, 256)]
        level += 1


# DSSE and in-toto ---------------------------------------------------------------------------


def read_entry(entry: bytes, public: bytes) -> dict:
    """The statement in an entry that the log's key signed."""
    envelope = json.loads(entry)
    payload = base64.b64decode(envelope["payload"], validate=True)
    kind = envelope["payloadType"].encode()
    pae = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    if kind != b"application/vnd.in-toto+json" or len(envelope["signatures"]) != 1:
        raise Wrong("an entry is no signed statement")
    signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
    check(public, signature, pae, "an entry's signature does not hold")
    statement = json.loads(payload)
    if statement["_type"] != "https://in-toto.io/Statement/v1":
        raise Wrong("an entry is no in-toto statement")
    return statement


# All of it ----------------------------------------------------------------------------------


def read_log(folder: Path, public: bytes) -> tuple[str, list[bytes], list[dict]]:
    """Origin, leaf hashes and statements of a log that holds together."""
    origin, size, root = read_checkpoint((folder / "checkpoint").read_bytes(), public)
    entries: list[bytes] = []
    for index in range(-(-size // 256)):
        entries += read_bundle(folder, index, min(256, size - index * 256))
    leaves = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
    if tree_hash(leaves) != root:
        raise Wrong("the entries do not lead to the checkpoint's root")
    check_hash_tiles(folder, leaves)
    return origin, leaves, [read_entry(entry, public) for entry in entries]


def check_cosigned(
    content: bytes, public: bytes, leaves: list[bytes], vkeys: list[str], quorum: int
) -> list[str]:
    """The witnesses of a checkpoint that the log contains; at least ``quorum`` of them."""
    _, size, root = read_checkpoint(content, public)
    if size > len(leaves) or tree_hash(leaves[:size]) != root:
        raise Wrong("the log does not contain the tree that was cosigned")
    names = cosigners_of(content, vkeys)
    if len(names) < quorum:
        raise Wrong(f"{len(names)} witnesses cosigned, and {quorum} must have")
    return names


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("key", type=Path)
    parser.add_argument("--witness", action="append", default=[])
    parser.add_argument("--quorum", type=int, default=1)
    parser.add_argument("--cosigned", type=Path)
    options = parser.parse_args(arguments)
    public = load_pem_public_key(options.key.read_bytes()).public_bytes_raw()
    try:
        origin, leaves, statements = read_log(options.folder, public)
        names = []
        if options.witness:
            path = options.cosigned or options.folder.parent / "checkpoint.cosigned"
            names = check_cosigned(
                path.read_bytes(), public, leaves, options.witness, options.quorum
            )
    except (Wrong, OSError, ValueError, KeyError, struct.error) as error:
        sys.stderr.write(f"wrong: {error}\n")
        return 1
    kinds = sorted({statement["predicateType"] for statement in statements})
    sys.stdout.write(
        json.dumps({"origin": origin, "size": len(leaves), "cosigned_by": names, "kinds": kinds})
    )
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
