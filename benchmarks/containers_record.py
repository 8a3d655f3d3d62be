"""What recording a container costs, beside what it cannot be below: the disk's sync and the TPM's extend.

    python benchmarks/containers_record.py [-o json] [--rounds 300]

The TPM is a software TPM, the disk the one of the current folder. An append and its bare parts (as
many bytes written and synced, as many digests extended into another PCR) take turns, so that both
meet the same machine. "Wall" is what a container waits; the rest is CPU time of this process.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from figures import Figure, cheapest, command, milliseconds

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from catena.containers.record.recorder import Recorder
from catena.containers.record.recovery import Place, stand
from catena.containers.record.replay import check_sequence, read_record, replay
from catena.formats import cel, containerlog
from catena.ids import HashAlg
from catena.tpm.device import connected
from catena.tpm.extender import PcrExtender, Tpm
from small_records import LAUNCH, POLICY, create, policy
from swtpm import software_tpm

AT_ONCE = 32
_HEX = "ab" * 32
_LAUNCH = containerlog.Launch(
    argv=("/usr/bin/web", "--listen", ":8080"),
    argv_total=3,
    user="1000:1000",
    env={f"NAME_{number}": _HEX for number in range(8)},
    mounts=tuple(f"/mnt/{number} bind /srv/{number} ro" for number in range(6)),
    capabilities=LAUNCH.capabilities,
    config=_HEX,
)

Work = Callable[[], object]


class Cost:
    """Wall clock and CPU seconds of the same work, over and over."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def take(self, work: Work) -> None:
        """Do it once more."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)

    def percentile(self, percent: int) -> float:
        """Of the wall clock."""
        return sorted(self.wall)[len(self.wall) * percent // 100]

    @property
    def work(self) -> float:
        """CPU seconds of the middle one."""
        return statistics.median(self.cpu)


class Bare:
    """What no recorder can do without: a write and sync of ``size`` bytes, and an extend."""

    def __init__(self, folder: Path, size: int, tpm: Tpm) -> None:
        self.file = os.open(folder / "bare", os.O_RDWR | os.O_CREAT, 0o600)
        self.bytes = bytes(size)
        self.tpm = tpm
        self.digests = {bank: bytes(bank.size) for bank in tpm.banks()}
        self.offsets = itertools.count(0, size)

    def __call__(self) -> None:
        """Once."""
        os.pwrite(self.file, self.bytes, next(self.offsets))
        os.fdatasync(self.file)
        self.tpm.extend(16, self.digests)


def figures(rounds: int) -> Iterator[Figure]:
    """All figures of one run."""
    with _gate() as (recorder, tpm, folder):
        before = recorder.path.stat().st_size
        _start(recorder, 0)
        size = recorder.path.stat().st_size - before
        yield Figure(name="bytes of a recorded start, two banks", value=size, unit="bytes")
        bare, mine = Cost(), Cost()
        once = Bare(folder, size, tpm)
        for number in range(rounds):
            bare.take(once)
            mine.take(lambda one=number: _start(recorder, one))
        for percent in (50, 99):
            yield milliseconds(
                f"append: wall, p{percent}",
                mine.percentile(percent),
                bare=bare.percentile(percent),
            )
        yield milliseconds("append: CPU", mine.work, limit=1.0, bare=bare.work)
        yield from _together(recorder, rounds)
        yield from _reading(recorder.path.read_bytes())


def _together(recorder: Recorder, rounds: int) -> Iterator[Figure]:
    """Appends by ``AT_ONCE`` threads."""
    count, waits = AT_ONCE * (1 + rounds // 10), Cost()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wall, cpu = time.perf_counter(), time.process_time()
        list(pool.map(lambda number: waits.take(lambda: _start(recorder, number)), range(count)))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    yield Figure(name=f"{AT_ONCE} at once: appends", value=round(count / wall), unit="per s")
    for percent in (50, 99):
        yield milliseconds(f"{AT_ONCE} at once: wall, p{percent}", waits.percentile(percent))
    yield milliseconds(f"{AT_ONCE} at once: CPU of an append", cpu / count, limit=1.0)


def _reading(data: bytes) -> Iterator[Figure]:
    """What a verifier and a recovery do, for each event."""
    events = read_record(data)
    banks = tuple(events[0].digests)

    def verify() -> None:
        read = read_record(data)
        check_sequence(read)
        replay(read, HashAlg.SHA256)

    values = {bank: replay(events, bank)[-1] for bank in banks}
    for what, work in (
        ("read, replay, check", verify),
        ("recover", lambda: stand(data, values, Place(15, None))),
    ):
        spent = cheapest(5, work) / len(events)
        yield milliseconds(f"{what}: CPU of an event", spent, limit=0.2)
    most = cel.MAX_LOG * len(events) // len(data)
    yield Figure(name="starts that a record has room for", value=most, unit="")


def _start(recorder: Recorder, number: int) -> None:
    recorder.append(create(container=f"{number:064x}", launch=_LAUNCH, policy=POLICY))


@contextmanager
def _gate() -> Iterator[tuple[Recorder, Tpm, Path]]:
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".record-") as name,
        software_tpm(Path(name) / "tpm", certificates=False) as chip,
        connected(chip.tcti) as esys,
    ):
        tpm = Tpm(esys)
        path = Path(name) / "record/record.cel"
        recorder = Recorder(path, PcrExtender(tpm, 15), lambda: datetime.now(UTC))
        recorder.recover()
        recorder.append(recorder.gate_start("benchmark"))
        recorder.append(policy())
        yield recorder, tpm, Path(name)
        recorder.close()


if __name__ == "__main__":
    command(__doc__ or "", figures, rounds=300)
