"""A fleet from beginning to end: enrol, first attestations, then load for as long as it is wanted."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import msgspec

from catena.lab.fleet import crowd
from catena.lab.fleet.driving import Driven, Fleet, drive_fleet
from catena.lab.fleet.load import Plan
from catena.lab.fleet.service import Service, Used
from catena.lab.fleet.source import Progress
from catena.lab.fleet.stopping import run_until_told

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
    generators: int
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


def simulate(
    fleet: Fleet, service: Service, plan: Plan, progress: Progress, generators: int = 1
) -> FleetReport:
    """Run it, in this process or dealt out to several. Raises ``ServerSilent``, ``GeneratorDied``."""
    used: list[Used] = []

    def measured() -> None:
        used.append(service.used())

    async def gate() -> None:
        measured()

    if generators > 1:
        driven = crowd.drive_apart(
            fleet, service.target, plan, progress, measured, count=generators
        )
    else:
        driven = run_until_told(lambda: drive_fleet(fleet, service.target, plan, progress, gate))
    before, after = used
    return _report(fleet, service, plan, driven, (before, after, generators))


def _report(
    fleet: Fleet, service: Service, plan: Plan, driven: Driven, measured: tuple[Used, Used, int]
) -> FleetReport:
    tally, seconds, source = driven.tally, driven.seconds, fleet.source
    count, ours = max(len(tally.latencies), 1), bool(service.pids)
    before, after, generators = measured
    cpu = after.cpu - before.cpu
    return FleetReport(
        keys=source.keys,
        tpms=source.tpms,
        nodes=fleet.nodes,
        boots=tuple(boot.name for boot in source.boots),
        connections=driven.connections,
        generators=generators,
        servers=len(service.target.urls),
        seconds=round(seconds, 2),
        rate_wanted=plan.rate,
        attestations=len(tally.latencies),
        rate=round(len(tally.latencies) / seconds, 1),
        server_cpu_ms=round(cpu / count * 1000, 3) if ours else None,
        server_cpu_busy=round(cpu / seconds, 3) if ours else None,
        generator_cpu_ms=round(driven.own / count * 1000, 3),
        latency=latency_of(tally.latencies),
        first=latency_of(tally.first),
        hostile=dict(sorted(tally.refused.items())),
        left_out=dict(source.left_out) if plan.hostile else {},
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
