"""dm-verity hash trees, format 1 (Linux, admin-guide/device-mapper/verity; cryptsetup DMVerity).

The hash partition is a superblock, one block long, and the tree from the top level down. Each
hash is SHA-256 of the salt and one 4096-byte block; 128 of them fill a block of the next level.
The result equals that of ``veritysetup format`` with the same salt and UUID. Making it needs no
device, no privilege and no program.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

from catena.errors import FormatError
from catena.formats.references import VerityRoot

BLOCK = 4096
_DIGEST = 32


class EmptyImage(FormatError):
    """An image without a single block has no root hash."""

    code = "empty-image"


@dataclass(frozen=True, slots=True)
class HashTree:
    """The parameters that a boot needs, and the content of the hash partition."""

    root: VerityRoot
    partition: bytes


def build(image: Path, *, salt: bytes, identity: uuid.UUID) -> HashTree:
    """The hash tree of a file that is a whole number of blocks. Raises ``EmptyImage``."""
    with image.open("rb") as file:
        level = [_hash(salt, block) for block in iter(lambda: file.read(BLOCK), b"")]
    data_blocks = len(level)
    if not data_blocks:
        raise EmptyImage(f"{image.name} is empty")
    levels: list[bytes] = []
    while len(level) > 1:
        packed = _packed(level)
        levels.append(packed)
        level = [_hash(salt, packed[at : at + BLOCK]) for at in range(0, len(packed), BLOCK)]
    root = VerityRoot(
        root_hash=level[0].hex(),
        salt=salt.hex(),
        hash_algorithm="sha256",
        data_block_size=BLOCK,
        hash_block_size=BLOCK,
        data_blocks=data_blocks,
    )
    partition = _superblock(root, salt, identity) + b"".join(reversed(levels))
    return HashTree(root, partition)


def release_salt(name: str, version: str, image_sha256: bytes) -> bytes:
    """A salt that differs between releases and is the same for the same release.

    Its purpose is that nobody can prepare colliding blocks before the release exists.
    """
    label = f"catena/verity-salt/v1\n{name}\n{version}\n".encode()
    return hashlib.sha256(label + image_sha256).digest()


def partition_guids(root_hash: str) -> tuple[uuid.UUID, uuid.UUID]:
    """Data and hash partition GUIDs (Discoverable Partitions Specification, "Verity")."""
    return uuid.UUID(root_hash[:32]), uuid.UUID(root_hash[32:])


def _hash(salt: bytes, block: bytes) -> bytes:
    return hashlib.sha256(salt + block.ljust(BLOCK, b"\0")).digest()


def _packed(hashes: list[bytes]) -> bytes:
    """Hashes of one level in whole blocks."""
    joined = b"".join(hashes)
    return joined + bytes(-len(joined) % BLOCK)


def _superblock(root: VerityRoot, salt: bytes, identity: uuid.UUID) -> bytes:
    """``struct verity_sb`` of cryptsetup: 512 bytes, little-endian, padded to a block."""
    fields = (
        b"verity\0\0"
        + (1).to_bytes(4, "little")  # version of this header
        + (1).to_bytes(4, "little")  # hash type: format 1
        + identity.bytes
        + root.hash_algorithm.encode().ljust(32, b"\0")
        + root.data_block_size.to_bytes(4, "little")
        + root.hash_block_size.to_bytes(4, "little")
        + root.data_blocks.to_bytes(8, "little")
        + len(salt).to_bytes(2, "little")
        + bytes(6)
        + salt
    )
    return fields.ljust(BLOCK, b"\0")
