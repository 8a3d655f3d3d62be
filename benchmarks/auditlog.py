"""The audit log: hashing, durable appends, verification and proofs, beside what they cannot be below.

Throughput is given as time per entry; "bare" is the hashing alone, or one wait for the disk and
one signature. Appends are measured on the disk that holds ``--folder``; as a disk is never twice
the same, their limits are ratios to a wait measured in the same run, by turns.

    python benchmarks/auditlog.py [-o json] [--rounds N]
"""

from __future__ import annotations

import gc
import hashlib
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from catena.audit import merkle, tiles
from catena.audit.entries import Verdict
from catena.audit.leaf import open_entry, seal_entry
from catena.audit.log import TransparencyLog
from catena.audit.merkle import Frontier
from catena.audit.tiles import FULL_TILE, TILE_WIDTH, Tile
from catena.audit.tree import EMPTY_TREE, TileNodes
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key
from figures import Figure, cheapest, command, milliseconds

ORIGIN = "log.example.org/fleet"
PAUSE = 0.2
"""Seconds between publications, as a server has them unless it is told otherwise."""
MILLION = 1_000_000
TEN_MILLION = 10_000_000
SMALL = [b"entry %7d" % number for number in range(200_000)]


def figures(rounds: int) -> Iterator[Figure]:
    """All of them."""
    yield from hashing(rounds)
    yield from verifying(rounds)
    yield from proofs(rounds)
    with tempfile.TemporaryDirectory(dir=Path(__file__).resolve().parents[1]) as folder:
        yield from appends(Path(folder))
        yield from opening(Path(folder))


def microseconds(
    name: str, seconds: float, limit: float | None = None, bare: float | None = None
) -> Figure:
    """Time per entry."""
    floor = None if bare is None else round(bare * 1e6, 3)
    return Figure(name=name, value=round(seconds * 1e6, 3), unit="us", limit=limit, bare=floor)


def hashing(rounds: int) -> Iterator[Figure]:
    """A tree in memory, in batches of a tile."""

    def bare() -> None:
        sha256 = hashlib.sha256
        for entry in SMALL:
            sha256(entry).digest()
        for _ in SMALL:
            sha256(_PAIR).digest()

    def frontier() -> None:
        tree = Frontier()
        for start in range(0, len(SMALL), TILE_WIDTH):
            tree = tree.extend(merkle.leaf_hashes(SMALL[start : start + TILE_WIDTH]))

    def tree() -> None:
        grown = EMPTY_TREE
        for start in range(0, len(SMALL), TILE_WIDTH):
            grown = grown.grow(SMALL[start : start + TILE_WIDTH]).tree

    floor = cheapest(rounds, bare) / len(SMALL)
    yield microseconds(
        "append a leaf, in memory (700k/s)",
        cheapest(rounds, frontier) / len(SMALL),
        1e6 / 700_000,
        floor,
    )
    yield microseconds(
        "the same, with tiles and bundles made", cheapest(rounds, tree) / len(SMALL), None, floor
    )


_PAIR = b"\x01" + bytes(64)


def verifying(rounds: int) -> Iterator[Figure]:
    """Bundles and tiles of a million small entries, checked against each other and the root."""
    bundles, hashes, root = million()

    def verify() -> None:
        tree = EMPTY_TREE
        for index, bundle in enumerate(bundles):
            growth = tree.grow(tiles.parse_bundle(bundle, width(index)))
            for tile, content in growth.files:
                if tile.level is not None and tile.width == last_width(tile):
                    assert hashes[tile] == content
            tree = growth.tree
        assert tree.frontier.root() == root

    yield microseconds(
        "verify an entry's place in a log of a million (500k/s)",
        cheapest(max(1, rounds // 3), verify) / MILLION,
        2.0,
    )
    signer = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))
    sealed = [seal_entry(signer, verdict(number)) for number in range(500)]
    yield microseconds(
        "verify an entry's own signature and content",
        cheapest(rounds, lambda: [open_entry(one, signer.public_key) for one in sealed])
        / len(sealed),
    )


def width(index: int) -> int:
    """Of a bundle of the million."""
    return tiles.width_at(None, index, MILLION)


def last_width(tile: Tile) -> int:
    """Of a tile of the million."""
    return tiles.width_at(tile.level, tile.index, MILLION)


def million() -> tuple[list[bytes], dict[Tile, bytes], bytes]:
    """Bundles, tiles and root of a million entries."""
    tree, bundles, hashes = EMPTY_TREE, [], {}
    for start in range(0, MILLION, TILE_WIDTH):
        growth = tree.grow([b"entry %7d" % n for n in range(start, min(start + 256, MILLION))])
        for tile, content in growth.files:
            if tile.level is None:
                bundles.append(content)
            elif tile.width == last_width(tile):
                hashes[tile] = content
        tree = growth.tree
    return bundles, hashes, tree.frontier.root()


class Simulated:
    """The tiles of a tree whose leaves are all alike: any size, no memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.alike = [bytes(32)]
        while len(self.alike) <= size.bit_length():
            self.alike.append(merkle.node_hash(self.alike[-1], self.alike[-1]))

    def read(self, name: str, limit: int) -> bytes | None:
        """A tile; every hash of a level is the same."""
        tile = tiles.parse_path(name)
        assert tile.level is not None
        if tile.width != tiles.width_at(tile.level, tile.index, self.size):
            return None
        assert limit >= FULL_TILE
        return self.alike[tile.level * 8] * tile.width


def proofs(rounds: int) -> Iterator[Figure]:
    """Inclusion from tiles, every tile read and hashed anew."""
    reader = Simulated(TEN_MILLION)
    root = merkle.range_root(0, TEN_MILLION, lambda node: reader.alike[node[0]])
    places = range(0, TEN_MILLION, TEN_MILLION // 97)

    def prove() -> None:
        for index in places:
            nodes = TileNodes(reader, TEN_MILLION)
            found = merkle.inclusion_proof(index, TEN_MILLION, nodes)
            merkle.verify_inclusion(bytes(32), index, TEN_MILLION, found, root)

    yield milliseconds(
        "prove and verify inclusion among 10 million",
        cheapest(rounds, prove) / len(places),
        limit=1.0,
    )


def verdict(number: int) -> Verdict:
    """An entry as the server writes them."""
    return Verdict(
        at=datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=number),
        actor="a" * 64,
        node_id="a" * 64,
        node_name="n1",
        verdict="trusted",
        state="trusted",
        evidence_sha256=f"{number:064x}",
    )


def appends(folder: Path) -> Iterator[Figure]:
    """Durable appends, each by turns with one bare wait for the disk and one signature."""
    signer = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))
    sealed = [seal_entry(signer, verdict(number)) for number in range(1024)]
    log = TransparencyLog.create(folder / "log", ORIGIN, signer)
    log.publish_behind(PAUSE)
    bare = bare_append(folder / "bare", signer, sealed[0])
    single, floor = by_turns(600, lambda n: log.append([sealed[n % 1024]]), lambda _: bare())
    yield Figure(
        name="append one entry, durably, beside one wait and signature",
        value=round(single / floor, 2),
        unit="times",
        limit=1.5,
        bare=1,
    )
    yield milliseconds("the same, median of the wall clock", single, bare=floor)
    start = time.perf_counter()
    for number in range(200):
        log.append(sealed[number % 4 * 256 :][:256])
    seconds = (time.perf_counter() - start) / (200 * 256)
    yield microseconds(
        f"append of 256 entries of {len(sealed[0])} bytes, each (30k/s)", seconds, 1e6 / 30_000
    )
    log.close()


def bare_append(path: Path, signer: PrivateKeySigner, content: bytes) -> Callable[[], None]:
    """One write to the end of a file, one wait for it, one signature."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def append() -> None:
        os.write(descriptor, content)
        os.fsync(descriptor)
        signer.sign(content[:150])

    return append


def by_turns(
    count: int, first: Callable[[int], object], second: Callable[[int], object]
) -> tuple[float, float]:
    """The median seconds of two kinds of work that take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(count):
        for work, taken in zip((first, second), times, strict=True):
            start = time.perf_counter()
            work(number)
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def opening(folder: Path) -> Iterator[Figure]:
    """A log is opened from its right edge, in memory that does not grow with it."""
    signer = PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))
    usage = []
    fill(folder / "first", 600_000, signer)  # what is kept for any log is there afterwards
    for size in (150_000, 600_000):
        gc.collect()
        tracemalloc.start()
        usage.append(fill(folder / f"log-{size}", size, signer))
        tracemalloc.stop()
    yield Figure(
        name="memory for appends to 600 000 entries, beside 150 000",
        value=round(usage[1] / usage[0], 2),
        unit="times",
        limit=1.25,
    )
    start = time.process_time()
    TransparencyLog.open(folder / "log-600000", signer).close()
    yield milliseconds("open a log of 600 000 entries", time.process_time() - start)


def fill(path: Path, size: int, signer: PrivateKeySigner) -> int:
    """Make a log of so many entries; the most memory that was traced meanwhile, in bytes."""
    log = TransparencyLog.create(path, ORIGIN, signer)
    for start in range(0, size, 1000):
        log.append(SMALL[start % len(SMALL) :][:1000])
    peak = tracemalloc.get_traced_memory()[1]
    log.close()
    return peak


if __name__ == "__main__":
    command(__doc__ or "", figures, rounds=7)
