"""One process' share of a fleet: enrolment, first attestations, then load between two gates."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import resource
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from catena.lab.fleet.load import Generator, Part, Plan, Tally, drive, enrol, watch
from catena.lab.fleet.source import Progress, Source
from catena.lab.fleet.wire import Line, Target

MIN_PER_CONNECTION = 2
"""Nodes: an attack needs another one."""

Gate = Callable[[], Awaitable[None]]
"""Awaited before load and after it, while all is connected: what it takes in between is measured."""
GATES = 2


@dataclass(frozen=True, slots=True)
class Fleet:
    """What is simulated."""

    nodes: int
    source: Source
    connections: int = 32
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Driven:
    """What came of it. ``own`` is this process' CPU seconds under load."""

    tally: Tally
    connections: int
    seconds: float
    own: float


@dataclass(frozen=True, slots=True)
class _Scene:
    """All that takes part, connected."""

    fleet: Fleet
    plan: Plan
    parts: Sequence[Part]
    opened: Sequence[Line]


async def drive_fleet(
    fleet: Fleet, target: Target, plan: Plan, progress: Progress, gate: Gate
) -> Driven:
    """From beginning to end. Raises ``ServerSilent``."""
    parts = _parts(fleet, progress, hostile=plan.hostile > 0)
    async with AsyncExitStack() as stack:
        opened = [Line(target, number) for number in range(len(parts))]
        for line in opened:
            stack.push_async_callback(line.close)
        return await _under_load(_Scene(fleet, plan, parts, opened), progress, gate)


async def _under_load(scene: _Scene, progress: Progress, gate: Gate) -> Driven:
    tally, plan, parts = Tally(), scene.plan, scene.parts
    pairs = zip(scene.opened, parts, strict=True)
    generators = [
        Generator(connection, part, tally, scene.fleet.source) for connection, part in pairs
    ]
    await _enrol_all(scene, progress)
    await _attest_all(generators, parts, progress)
    tally.latencies = []
    gc.freeze()  # a fleet of nodes in memory is the generator's, and not to be looked through again
    await gate()
    own = _own_cpu()
    watching = asyncio.create_task(
        watch(tally, plan.seconds, lambda done, _: progress("attesting", done, plan.seconds))
    )
    try:
        seconds = await drive(generators, parts, plan)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    own = _own_cpu() - own
    await gate()
    return Driven(tally, len(parts), seconds, own)


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
