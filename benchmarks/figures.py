"""Figures of a benchmark: how they are measured, held against limits, and shown."""

from __future__ import annotations

import argparse
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. ``limit`` is the most it may be, ``bare`` what it cannot be below."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    bare: float | None = None

    @property
    def holds(self) -> bool:
        """Whether it keeps its limit, if it has one."""
        return self.limit is None or self.value <= self.limit


class Result(msgspec.Struct, frozen=True):
    """All figures of one run."""

    figures: tuple[Figure, ...]


def cheapest(rounds: int, work: Callable[[], object]) -> float:
    """CPU seconds of the fastest round: what the work costs when nothing disturbs it."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def peak(work: Callable[[], object]) -> float:
    """The most KiB that Python objects took during ``work``."""
    tracemalloc.start()
    work()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1024


def milliseconds(
    name: str, seconds: float, limit: float | None = None, bare: float = 0.0
) -> Figure:
    """A figure of CPU time."""
    floor = round(bare * 1000, 4) if bare else None
    return Figure(name=name, value=round(seconds * 1000, 4), unit="ms", limit=limit, bare=floor)


def show(result: Result) -> None:
    """A line for each figure."""
    print(f"{'':<56}{'measured':>10}{'limit':>9}{'bare':>9}")
    for one in result.figures:
        limit = "" if one.limit is None else f"{one.limit:g}"
        bare = "" if one.bare is None else f"{one.bare:g}"
        mark = "" if one.holds else "  missed"
        print(f"{one.name:<56}{one.value:>10g}{limit:>9}{bare:>9} {one.unit}{mark}")


def command(description: str, figures: Callable[[int], Iterator[Figure]], *, rounds: int) -> None:
    """Parse the command line, measure, print; exit with 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--rounds", type=int, default=rounds)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    result = Result(tuple(figures(options.rounds)))
    if options.output == "json":
        print(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    else:
        show(result)
    sys.exit(not all(one.holds for one in result.figures))
