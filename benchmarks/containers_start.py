"""What the gate adds to the start of a container, and what it can take.

Runs ``runc run`` of a small container, by itself and through wrapper and gate, in turns, so that
whatever else the machine does falls on both. The image is signed and known (warm), the TPM is a
software TPM, the record lies on a disk and is synced. A quantile's overhead is the difference
between the quantiles of both series.

Of many starts at a time, each waits for the processors that the others use. What a start costs
there is the time of all of them, divided by their number; how long each took is shown beside it.

    python benchmarks/containers_start.py [-o json] [--rounds N]

Needs root, runc, busybox-static and swtpm. Ends with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/agent/gate"))

from node import APP, Node
from standing import RUNC

from catena.containers.wrapper import protocol
from catena.containers.wrapper.protocol import Request
from figures import Figure, Result, show
from swtpm import software_tpm

PARALLEL = 32
DECISIONS = 600
CALLERS = 8
WARM_UP = 5


class Bench:
    """A node, its gate, and a bundle for each container that runs at the same time."""

    def __init__(self, node: Node, gate: int) -> None:
        self.node = node
        self.gate = gate
        self.bundles = [node.bundle(APP, "/bin/true", name=f"b{n}") for n in range(PARALLEL)]
        self._names = count()

    def plain(self, bundle: Path) -> float:
        """Seconds that `runc run` takes."""
        return self._timed([str(RUNC)], bundle)

    def guarded(self, bundle: Path) -> float:
        """Seconds that it takes through the wrapper."""
        return self._timed([str(self.node.wrapper)], bundle)

    def _timed(self, command: list[str], bundle: Path) -> float:
        words = ["--root", str(self.node.state), "run", "--bundle", str(bundle)]
        start = time.perf_counter()
        # Without a timeout: Python would look for the end in steps of up to 50 ms.
        subprocess.run([*command, *words, f"c{next(self._names)}"], check=True)
        return time.perf_counter() - start

    def gate_seconds(self) -> float:
        """CPU time of the gate (clock_getcpuclockid(3): the clock of a process)."""
        return time.clock_gettime((~self.gate << 3) | 2)

    def decide(self, bundle: Path, number: int) -> None:
        """One question to the gate, without a container."""
        words = ("--root", str(self.node.state), "create", "--bundle", str(bundle), f"d{number}")
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(self.node.socket))
            channel.sendall(protocol.frame(Request(Path("/"), RUNC, words).encode()))
            answer = channel.recv(65536)
        assert answer[4:].startswith(b"allow\0"), answer


def starts(bench: Bench, rounds: int) -> Iterator[Figure]:
    """One at a time."""
    bundle = bench.bundles[0]
    for _ in range(WARM_UP):
        bench.plain(bundle)
        bench.guarded(bundle)
    series: dict[Callable[[Path], float], list[float]] = {bench.plain: [], bench.guarded: []}
    used = dict.fromkeys(series, 0.0)
    gate = bench.gate_seconds()
    for _ in range(rounds):
        for start, took in series.items():
            before = children_seconds()
            took.append(start(bundle))
            used[start] += children_seconds() - before
    yield from overhead("one at a time", series[bench.plain], series[bench.guarded], limits=True)
    wrapper = (used[bench.guarded] - used[bench.plain]) / rounds
    yield milliseconds("CPU time that the wrapper adds to a start", wrapper)
    yield milliseconds("CPU time of the gate for a start", (bench.gate_seconds() - gate) / rounds)


def crowds(bench: Bench, rounds: int) -> Iterator[Figure]:
    """Thirty-two at a time."""
    for bundle in bench.bundles:
        bench.guarded(bundle)
    series: dict[Callable[[Path], float], list[float]] = {bench.plain: [], bench.guarded: []}
    walls: dict[Callable[[Path], float], list[float]] = {bench.plain: [], bench.guarded: []}
    with ThreadPoolExecutor(PARALLEL) as pool:
        for _ in range(max(rounds // PARALLEL, 3)):
            for start, took in series.items():
                begun = time.perf_counter()
                took.extend(pool.map(start, bench.bundles))
                walls[start].append((time.perf_counter() - begun) / PARALLEL)
    bare = quantile(walls[bench.plain], 0.5)
    added = quantile(walls[bench.guarded], 0.5) - bare
    yield milliseconds(f"{PARALLEL} at a time, divided by {PARALLEL}: runc run", bare)
    yield milliseconds(f"{PARALLEL} at a time, divided by {PARALLEL}: overhead", added, 13.0)
    yield from overhead(f"{PARALLEL} at a time, each", series[bench.plain], series[bench.guarded])


def overhead(
    name: str, plain: list[float], guarded: list[float], *, limits: bool = False
) -> Iterator[Figure]:
    """Quantiles of the plain series, and what the other has above them."""
    for label, share, limit in (("p50", 0.5, 13.0), ("p99", 0.99, 40.0)):
        bare, whole = quantile(plain, share), quantile(guarded, share)
        yield milliseconds(f"{name}: runc run, {label}", bare)
        yield milliseconds(f"{name}: overhead, {label}", whole - bare, limit if limits else None)


def children_seconds() -> float:
    """CPU time of processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def decisions(bench: Bench) -> Iterator[Figure]:
    """Questions answered in a second, each with its record on disk and in the TPM."""
    numbers = range(DECISIONS)
    with ThreadPoolExecutor(CALLERS) as pool:
        start = time.perf_counter()
        list(pool.map(lambda n: bench.decide(bench.bundles[n % PARALLEL], n), numbers))
        rate = DECISIONS / (time.perf_counter() - start)
    yield Figure(name="time for 300 decisions", value=round(300 / rate, 3), unit="s", limit=1.0)
    yield Figure(name="decisions in a second", value=round(rate, 1), unit="1/s")


def memory(bench: Bench) -> Iterator[Figure]:
    """What the gate holds after all of this."""
    status = Path(f"/proc/{bench.gate}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    most = int(fields["VmHWM"].split()[0]) / 1024
    yield Figure(name="gate, most memory", value=round(most, 1), unit="MB", limit=80)


def milliseconds(name: str, seconds: float, limit: float | None = None) -> Figure:
    """A figure of wall clock or CPU time."""
    return Figure(name=name, value=round(seconds * 1000, 2), unit="ms", limit=limit)


def quantile(values: list[float], share: float) -> float:
    """The value that this share of all values is below."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


@contextmanager
def standing() -> Iterator[Bench]:
    """A node below a folder in memory, with its record on a disk."""
    memory_folder = Path(tempfile.mkdtemp(prefix="gate-", dir="/dev/shm"))
    disk = Path(tempfile.mkdtemp(prefix="gate-"))
    try:
        with software_tpm(disk / "tpm", certificates=False) as tpm:
            (disk / "record").mkdir(mode=0o700)
            settings = {"record": str(disk / "record/containers.cel")}
            node = Node(memory_folder, tpm, settings=settings)
            with node.gate() as gate:
                yield Bench(node, gate.pid)
            node.clean()
    finally:
        shutil.rmtree(memory_folder, ignore_errors=True)
        shutil.rmtree(disk, ignore_errors=True)


def figures(rounds: int) -> Iterator[Figure]:
    """Everything, in one run."""
    with standing() as bench:
        yield from starts(bench, rounds)
        yield from crowds(bench, rounds)
        yield from decisions(bench)
        yield from memory(bench)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    result = Result(tuple(figures(options.rounds)))
    if options.output == "json":
        print(msgspec.json.format(msgspec.json.encode(result), indent=2).decode())
    else:
        show(result)
    sys.exit(not all(one.holds for one in result.figures))


if __name__ == "__main__":
    main()
