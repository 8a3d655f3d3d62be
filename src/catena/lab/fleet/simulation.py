"""A fleet from beginning to end: enrol, first attestations, then load for as long as it is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import resource
import statistics
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import msgspec

from catena.lab.fleet.load import Generator, Part, Plan, Tally, drive, enrol, watch
from catena.lab.fleet.service import Service, Used
from catena.lab.fleet.source import Progress, Source
from catena.lab.fleet.stopping import run_until_told
from catena.lab.fleet.wire import Line

MIN_PER_CONNECTION = 2
"""Nodes: an attack needs another one."""
BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Bucket(msgspec.Struct, frozen=True):
    """How many attestations took up to so many milliseconds, and more than the bucket before."""

    up_to_ms: float | None
    count: int


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from asking for a nonce to the verdict, as the node sees it."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    most: float
    histogram: tuple[Bucket, ...]


class FleetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ``catena lab fleet`` found. CPU is in milliseconds for each honest attestation."""

    keys: str
    tpms: int
    nodes: int
    boots: tuple[str, ...]
    connections: int
    servers: int
    seconds: float
    rate_wanted: float | None
    attestations: int
    rate: float
    server_cpu_ms: float | None
    server_cpu_busy: float | None
    generator_cpu_ms: float
    latency: Latency
    first: Latency
    hostile: dict[str, int]
    left_out: dict[str, str]
    wrong: dict[str, int]
    faults: int
    examples: tuple[str, ...]
    rss_before_mb: float
    rss_after_mb: float
    files_before: int
    files_after: int

    @property
    def holds(self) -> bool:
        """Whether every request ended as it must."""
        return not self.wrong and not self.faults


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is simulated."""

    nodes: int
    source: Source
    connections: int = 32
    seed: int = 1


def simulate(fleet: Fleet, service: Service, plan: Plan, progress: Progress) -> FleetReport:
    """Run it. Raises ``ServerSilent``."""
    return run_until_told(lambda: _simulate(fleet, service, plan, progress))


async def _simulate(fleet: Fleet, service: Service, plan: Plan, progress: Progress) -> FleetReport:
    parts = _parts(fleet, progress, hostile=plan.hostile > 0)
    async with AsyncExitStack() as stack:
        opened = [Line(service.target, number) for number in range(len(parts))]
        for line in opened:
            stack.push_async_callback(line.close)
        return await _under_load(_Scene(fleet, service, plan, parts, opened), progress)


@dataclass(frozen=True, slots=True)
class _Scene:
    """All that takes part, connected."""

    fleet: Fleet
    service: Service
    plan: Plan
    parts: Sequence[Part]
    opened: Sequence[Line]


async def _under_load(scene: _Scene, progress: Progress) -> FleetReport:
    tally, plan, parts = Tally(), scene.plan, scene.parts
    pairs = zip(scene.opened, parts, strict=True)
    generators = [
        Generator(connection, part, tally, scene.fleet.source) for connection, part in pairs
    ]
    await _enrol_all(scene, progress)
    await _attest_all(generators, parts, progress)
    first, tally.latencies = tally.first, []
    gc.freeze()  # a fleet of nodes in memory is the generator's, and not to be looked through again
    before, own = scene.service.used(), _own_cpu()
    watching = asyncio.create_task(
        watch(tally, plan.seconds, lambda done, _: progress("attesting", done, plan.seconds))
    )
    try:
        seconds = await drive(generators, parts, plan)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    after, own = scene.service.used(), _own_cpu() - own
    return _report(scene, tally, first, _Measured(seconds, before, after, own))


@dataclass(frozen=True, slots=True)
class _Measured:
    """Seconds of load, what the service had used before and after, and our own CPU seconds."""

    seconds: float
    before: Used
    after: Used
    own: float


def _report(
    scene: _Scene, tally: Tally, first: Sequence[float], measured: _Measured
) -> FleetReport:
    count, ours = max(len(tally.latencies), 1), bool(scene.service.pids)
    before, after, seconds = measured.before, measured.after, measured.seconds
    cpu = after.cpu - before.cpu
    source = scene.fleet.source
    return FleetReport(
        keys=source.keys,
        tpms=source.tpms,
        nodes=scene.fleet.nodes,
        boots=tuple(boot.name for boot in source.boots),
        connections=len(scene.parts),
        servers=len(scene.service.target.urls),
        seconds=round(seconds, 2),
        rate_wanted=scene.plan.rate,
        attestations=len(tally.latencies),
        rate=round(len(tally.latencies) / seconds, 1),
        server_cpu_ms=round(cpu / count * 1000, 3) if ours else None,
        server_cpu_busy=round(cpu / seconds, 3) if ours else None,
        generator_cpu_ms=round(measured.own / count * 1000, 3),
        latency=latency_of(tally.latencies),
        first=latency_of(first),
        hostile=dict(sorted(tally.refused.items())),
        left_out=dict(source.left_out) if scene.plan.hostile else {},
        wrong=dict(tally.wrong),
        faults=tally.faults,
        examples=tuple(tally.examples),
        rss_before_mb=round(before.rss_mb, 1),
        rss_after_mb=round(after.rss_mb, 1),
        files_before=before.files,
        files_after=after.files,
    )


def latency_of(seconds: Sequence[float]) -> Latency:
    """Percentiles and histogram."""
    values = sorted(one * 1000 for one in seconds)
    if not values:
        return Latency(count=0, mean=0, p50=0, p90=0, p99=0, most=0, histogram=())

    def at(share: float) -> float:
        return round(values[min(int(len(values) * share), len(values) - 1)], 2)

    return Latency(
        count=len(values),
        mean=round(statistics.fmean(values), 2),
        p50=at(0.5),
        p90=at(0.9),
        p99=at(0.99),
        most=round(values[-1], 2),
        histogram=tuple(_histogram(values)),
    )


def _histogram(values: Sequence[float]) -> Iterator[Bucket]:
    below = 0
    for limit in BUCKETS_MS:
        count = sum(value <= limit for value in values)
        yield Bucket(limit, count - below)
        below = count
    yield Bucket(None, len(values) - below)


def _parts(fleet: Fleet, progress: Progress, *, hostile: bool) -> list[Part]:
    """The nodes, made and dealt out to as many connections as they are enough for."""
    count = max(1, min(fleet.connections, fleet.nodes // MIN_PER_CONNECTION))
    source, honest = fleet.source, []
    for number in range(fleet.nodes):
        honest.append(source.node())
        progress("making keys", number + 1, fleet.nodes)
    parts = []
    for number in range(count):
        bad = [source.node()] if hostile else []
        unrestricted = source.unrestricted() if hostile else None
        chance = random.Random(fleet.seed + number)  # noqa: S311 - which request is hostile
        parts.append(Part(honest[number::count], bad, unrestricted, chance))
    return parts


async def _enrol_all(scene: _Scene, progress: Progress) -> None:
    parts = scene.parts
    total, done = sum(len(part.honest) + len(part.bad) for part in parts), 0

    async def enrol_part(connection: Line, part: Part) -> None:
        nonlocal done
        for node in (*part.honest, *part.bad):
            await enrol(connection, node, scene.fleet.source)
            done += 1
            progress("enrolling", done, total)

    await asyncio.gather(*map(enrol_part, scene.opened, parts))


async def _attest_all(
    generators: Sequence[Generator], parts: Sequence[Part], progress: Progress
) -> None:
    """Every node's first attestation, with all its logs; a bad node's, too: it has a past to deny."""
    total, done = sum(len(part.honest) + len(part.bad) for part in parts), 0

    async def attest_part(generator: Generator, part: Part) -> None:
        nonlocal done
        for node in (*part.honest, *part.bad):
            await generator.attest(node)
            done += 1
            progress("first attestations", done, total)

    await asyncio.gather(*map(attest_part, generators, parts))


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
