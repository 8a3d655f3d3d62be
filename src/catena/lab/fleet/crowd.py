"""Several processes that generate load together, so that one core is not all there is for it.

Each is a fork with its share of nodes, connections and rate; what it holds (keys, boots) it has from
here. All wait for the last one before load and after it, so that what is measured is of all. A TPM has one connection,
so only software keys can be shared out. None outlives this process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import uvloop

from catena.errors import CatenaError, Unavailable
from catena.lab.fleet.driving import GATES, Driven, Fleet, drive_fleet
from catena.lab.fleet.load import Plan, Tally
from catena.lab.fleet.source import Progress
from catena.lab.fleet.wire import Target
from catena.osimage.tool import die_with

_FORK = multiprocessing.get_context("fork")
_READY = "ready"
_SEEDS = 1000
"""Between the seeds of two processes: more than one has connections."""


class GeneratorDied(Unavailable):
    """A process that generates load ended before it told what it found."""

    code = "generator-died"
    remedy = "Its last words are on standard error; give fewer --generators if memory is short."


def drive_apart(
    fleet: Fleet,
    target: Target,
    plan: Plan,
    progress: Progress,
    measured: Callable[[], None],
    *,
    count: int,
) -> Driven:
    """``drive_fleet`` in ``count`` processes; ``measured`` is called when all stand at a gate.

    Raises ``GeneratorDied``.
    """
    done: dict[tuple[str, int], tuple[float, float]] = {}

    def told(number: int, phase: str, some: float, total: float) -> None:
        done[phase, number] = some, total
        shares = [share for (one, _), share in done.items() if one == phase]
        progress(phase, sum(one for one, _ in shares), sum(one for _, one in shares))

    with _running(_shares(fleet, plan, count), target) as lines:
        for _ in range(GATES):
            _hear(lines, told)
            measured()
            for line in lines:
                line.send(_READY)
        found = _hear(lines, told)
    return _together([one for one in found if isinstance(one, Driven)])


def _shares(fleet: Fleet, plan: Plan, count: int) -> Iterator[tuple[Fleet, Plan]]:
    for number in range(count):
        nodes, connections = (
            (all_ + count - 1 - number) // count for all_ in (fleet.nodes, fleet.connections)
        )
        seed = fleet.seed + number * _SEEDS
        share = replace(fleet, nodes=nodes, connections=max(1, connections), seed=seed)
        yield share, replace(plan, rate=plan.rate and plan.rate / count)


@contextmanager
def _running(
    shares: Iterator[tuple[Fleet, Plan]], target: Target
) -> Iterator[Sequence[Connection]]:
    """A line to each process; all have ended afterwards."""
    processes: list[BaseProcess] = []
    lines: list[Connection] = []
    try:
        for fleet, plan in shares:
            ours, theirs = _FORK.Pipe()
            process: BaseProcess = _FORK.Process(
                target=_generate, args=(theirs, os.getpid(), fleet, target, plan), daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
            lines.append(ours)
        yield lines
    finally:
        for process in processes:
            process.kill()
            process.join()
        for line in lines:
            line.close()


def _generate(line: Connection, parent: int, fleet: Fleet, target: Target, plan: Plan) -> None:
    """One process: it has nothing to clean up, and ends by a signal as if it were none of ours."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    die_with(parent)()

    async def gate() -> None:
        line.send(_READY)
        line.recv()

    def progress(phase: str, some: float, total: float) -> None:
        line.send((phase, some, total))

    try:
        line.send(uvloop.run(drive_fleet(fleet, target, plan, progress, gate)))
    except CatenaError as error:
        line.send(str(error))


def _hear(
    lines: Sequence[Connection], told: Callable[[int, str, float, float], None]
) -> list[object]:
    """Listen until each has said that it is ready, or what it found. Raises ``GeneratorDied``."""
    said: dict[int, object] = {}
    numbers = {line: number for number, line in enumerate(lines)}
    while waiting := [line for line, number in numbers.items() if number not in said]:
        heard_of = wait(waiting)
        for line in [one for one in waiting if one in heard_of]:
            try:
                heard = line.recv()
            except EOFError as error:
                raise GeneratorDied("a process that generates load ended") from error
            match heard:
                case (str(phase), float() | int() as some, float() | int() as total):
                    told(numbers[line], phase, some, total)
                case str(words) if words != _READY:
                    raise GeneratorDied("a process that generates load failed", got=words[:200])
                case _:
                    said[numbers[line]] = heard
    return list(said.values())


def _together(found: Sequence[Driven]) -> Driven:
    """The sum; seconds are those of the one that took longest."""
    tally = Tally()
    for one in (each.tally for each in found):
        tally.latencies += one.latencies
        tally.first += one.first
        tally.refused += one.refused
        tally.wrong += one.wrong
        tally.faults += one.faults
        tally.examples += one.examples
    return Driven(
        tally,
        sum(one.connections for one in found),
        max(one.seconds for one in found),
        sum(one.own for one in found),
    )
