"""CPU time of finding out which image a container's files are, beside hashing them alone.

The tree is made here: 8,000 files, 220 MB, sizes spread as in images, and one large file. "Bare" is the least that
must be done: the same bytes through ``hashlib``; for the fingerprint, one ``stat`` for each file
at a path known beforehand. A layer's "bare" is ``zlib`` and the three hashes that it takes: the blob,
the tar inside, its files.

    python benchmarks/containers_rootfs.py [-o json] [--rounds N]

Ends with exit code 1 if a figure misses its limit. Needs 500 MB of memory for files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from catena.containers.rootfs import walk
from catena.containers.rootfs.catalog import Catalog
from catena.containers.rootfs.fingerprints import Fingerprints
from catena.containers.rootfs.identification import identify
from catena.containers.rootfs.layer import layer_tree
from catena.containers.rootfs.packing import Hashed, unpacked
from catena.formats import layertar, oci
from catena.ids import ImageDigest
from figures import Figure, cheapest, command, milliseconds, peak

FILES = 8_000
FOLDERS = 400
MEGABYTES = 220
LARGE = 200_000_000
MEMORY = Path("/dev/shm")
_LEVEL = 1


def make_tree(folder: Path) -> None:
    """Files of exponentially distributed sizes."""
    chance = random.Random(1)
    mean = MEGABYTES * 1_000_000 / FILES
    pool = chance.randbytes(1 << 20)
    for number in range(FILES):
        place = folder / f"usr/{number % 20}/{number % FOLDERS}"
        place.mkdir(parents=True, exist_ok=True)
        size = int(chance.expovariate(1 / mean))
        start = chance.randrange(len(pool))
        content = (pool[start:] + pool * (size // len(pool) + 1))[:size]
        (place / f"file-{number}").write_bytes(content)


def paths(folder: Path) -> list[str]:
    """Every file, where it is."""
    return [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]  # noqa: PTH118 - speed


def bare_hash(files: list[str]) -> None:
    """All files through hashlib, as Python reads files fastest."""
    for path in files:
        with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 - speed
            hashlib.file_digest(stream, "sha256")


def bare_stat(files: list[str]) -> None:
    """One stat for each file."""
    for path in files:
        os.stat(path, follow_symlinks=False)  # noqa: PTH116 - speed


def tree_figures(folder: Path, rounds: int) -> Iterator[Figure]:
    """A tree of many files: hashed, and looked at again."""
    files = paths(folder)
    with walk.opened(folder) as descriptor:
        size = walk.listing(descriptor, None).hashed
        whole = cheapest(rounds, lambda: walk.listing(descriptor, None))
        stats = cheapest(rounds * 3, lambda: walk.stats(descriptor))
    bare = cheapest(rounds, lambda: bare_hash(files))
    name = f"{FILES:,} files, {size // 10**6} MB"
    yield milliseconds(f"{name}: list and hash", whole, bare=bare)
    yield _each_500_mb(f"{name}: each 500 MB", size, whole, bare, limit=1.0)
    bare = cheapest(rounds * 3, lambda: bare_stat(files))
    yield milliseconds(f"{FILES:,} files: fingerprint", stats, bare=bare)


def large_figures(folder: Path, rounds: int) -> Iterator[Figure]:
    """One large file."""
    (folder / "large").write_bytes(random.Random(2).randbytes(1 << 20) * (LARGE >> 20))
    files = paths(folder)
    with walk.opened(folder) as descriptor:
        size = walk.listing(descriptor, None).hashed
        whole = cheapest(rounds, lambda: walk.listing(descriptor, None))
    bare = cheapest(rounds, lambda: bare_hash(files))
    yield _each_500_mb("one large file: each 500 MB", size, whole, bare, limit=1.0)


def _each_500_mb(name: str, size: int, seconds: float, bare: float, *, limit: float) -> Figure:
    """A rate as time: 500 MB each second are what the project promises."""
    share = 500e6 / size
    value, floor = round(seconds * share, 3), round(bare * share, 3)
    return Figure(name=name, value=value, unit="s", limit=limit, bare=floor)


class OneLayer:
    """An image of one layer, as ``Blobs``."""

    def __init__(self, folder: Path) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(folder, ".")
        self.tar = out.getvalue()
        self.packed = gzip.compress(self.tar, _LEVEL, mtime=0)
        self._blobs = {_digest(self.packed): self.packed}
        root = {"type": "layers", "diff_ids": [_digest(self.tar)]}
        config = {"architecture": "amd64", "os": "linux", "rootfs": root}
        manifest = {
            "schemaVersion": 2,
            "config": {"mediaType": oci.IMAGE_CONFIG, "digest": self._put(config), "size": 0},
            "layers": [
                {"mediaType": "x", "digest": _digest(self.packed), "size": len(self.packed)}
            ],
        }
        self.image = ImageDigest(self._put(manifest))

    def _put(self, document: object) -> str:
        data = json.dumps(document).encode()
        self._blobs[_digest(data)] = data
        return _digest(data)

    def read(self, digest: str, limit: int) -> bytes:
        """A document."""
        del limit
        return self._blobs[digest]

    def open(self, digest: str) -> BinaryIO:
        """A layer."""
        return io.BytesIO(self._blobs[digest])


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def list_layer(layer: OneLayer) -> None:
    """A layer as the catalog reads it."""
    packed = Hashed(io.BytesIO(layer.packed), "sha256", limit=1 << 40)
    with unpacked(packed) as inside:
        layer_tree(layertar.entries(Hashed(inside, "sha256", limit=1 << 40)))


def bare_layer(layer: OneLayer) -> None:
    """Unpacked, and hashed three times, each in one piece."""
    tar = zlib.decompress(layer.packed, wbits=31)
    for data in (layer.packed, tar, tar):
        hashlib.sha256(data).digest()


def image_figures(folder: Path, rounds: int) -> Iterator[Figure]:
    """A layer's blob, and the whole way from a root to its image."""
    layer = OneLayer(folder)
    bare = cheapest(rounds, lambda: bare_layer(layer))
    yield milliseconds(
        f"{FILES:,} files: list a layer's blob",
        cheapest(rounds, lambda: list_layer(layer)),
        bare=bare,
    )
    catalog, cache = Catalog(layer), Fingerprints()
    catalog.add(layer.image)
    table = Path("/proc/self/mountinfo").read_text()

    def start(*, strict: bool = False) -> None:
        identify(folder, mountinfo=table, catalog=catalog, cache=cache, strict=strict)

    start()
    yield milliseconds("the root of a container: identify, known", cheapest(rounds * 3, start))
    strict = cheapest(rounds, lambda: start(strict=True))
    yield milliseconds("the root of a container: identify, strict", strict)
    base = peak(lambda: list_layer(layer))
    yield Figure(
        name="memory to list a layer's blob", value=round(base), unit="KiB", limit=32 * 1024
    )


def figures(rounds: int) -> Iterator[Figure]:
    """Everything, in one run."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        many, one = Path(place, "many"), Path(place, "one")
        one.mkdir()
        make_tree(many)
        time.sleep(2 * walk.TICK / 1e9)
        yield from tree_figures(many, rounds)
        yield from image_figures(many, rounds)
        yield from large_figures(one, rounds)


if __name__ == "__main__":
    command(__doc__, figures, rounds=5)
