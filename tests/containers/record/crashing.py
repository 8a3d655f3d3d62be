"""A gate that dies at one moment of its work: run as a program by the crash tests.

    crashing.py RECORD TCTI MOMENT [NAME]

Recovers, begins, and appends batches of events from several threads until MOMENT, where it kills
itself; if MOMENT is ``never``, until it is killed. Prints a line for each event that was
acknowledged, at once; NAME is in all of them. NV_INDEX in the environment is where the record goes
instead of PCR 15.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from signal import SIGKILL

from recording import begin, recorder_of

from catena.containers.record.recorder import Recorder
from small_records import create, deny, execute

AT_ONCE = 8
ROUNDS = 3


def die() -> None:
    os.kill(os.getpid(), SIGKILL)


def once(count: int, then: Callable[[], None] = die) -> Callable[[], None]:
    """Something that happens at the ``count``-th call."""
    calls = iter(range(1, sys.maxsize))
    return lambda: then() if next(calls) == count else None


def before_write(recorder: Recorder) -> None:
    real, reached = os.pwrite, once(2)
    os.pwrite = lambda *words: (reached(), real(*words))[1]


def mid_write(recorder: Recorder) -> None:
    """Three bytes are missing at the end."""
    real, reached = os.pwrite, once(2)

    def write(descriptor, data, offset):
        real(descriptor, data[:-3], offset)
        reached()
        return real(descriptor, data[-3:], offset + len(data) - 3) + len(data) - 3

    os.pwrite = write


def mid_batch(recorder: Recorder) -> None:
    """Half of what should have been written is there, some events whole."""
    real, reached = os.pwrite, once(2)

    def write(descriptor, data, offset):
        half = len(data) // 2 + 1  # never between two events of one size
        real(descriptor, data[:half], offset)
        reached()
        return real(descriptor, data[half:], offset + half) + half

    os.pwrite = write


def before_sync(recorder: Recorder) -> None:
    real, reached = os.fdatasync, once(2)
    os.fdatasync = lambda descriptor: (reached(), real(descriptor))[1]


def before_extend(recorder: Recorder) -> None:
    real, reached = os.fdatasync, once(2)
    os.fdatasync = lambda descriptor: (real(descriptor), reached())[0]


def between_extends(recorder: Recorder) -> None:
    real, reached = recorder._tpm.extend, once(4)
    recorder._tpm.extend = lambda digests: (reached(), real(digests))[1]


def after_extend(recorder: Recorder) -> None:
    real, reached = recorder._tpm.extend, once(4)
    recorder._tpm.extend = lambda digests: (real(digests), reached())[0]


def at_first_extend(recorder: Recorder) -> None:
    """Not even the first gate-start reaches the TPM."""
    recorder._tpm.extend = lambda digests: die()


def at_first_write(recorder: Recorder) -> None:
    """The first gate-start is torn."""
    real = os.pwrite
    os.pwrite = lambda descriptor, data, offset: (real(descriptor, data[:99], offset), die())


def full(recorder: Recorder) -> None:
    """From the second write on the disk is full, halfway through it."""
    real, failing = os.pwrite, []
    reached = once(2, lambda: failing.append(True))

    def write(descriptor, data, offset):
        reached()
        if not failing:
            return real(descriptor, data, offset)
        if len(data) > 100:
            return real(descriptor, data[:100], offset)
        raise OSError(28, "No space left on device")

    os.pwrite = write


def before_truncate(recorder: Recorder) -> None:
    full(recorder)
    os.ftruncate = lambda *words: die()


def after_truncate(recorder: Recorder) -> None:
    full(recorder)
    real = os.ftruncate
    os.ftruncate = lambda *words: (real(*words), die())


MOMENTS = (
    at_first_write,
    at_first_extend,
    before_write,
    mid_write,
    mid_batch,
    before_sync,
    before_extend,
    between_extends,
    after_extend,
    before_truncate,
    after_truncate,
)

IN_RECOVERY = ("cut", "extend")


def dying_in_recovery(moment: str, recorder: Recorder) -> None:
    if moment == "cut":
        os.ftruncate = lambda *words: die()
    else:
        between_extends_of_recovery = once(2)
        real = recorder._tpm.extend
        recorder._tpm.extend = lambda digests: (between_extends_of_recovery(), real(digests))[1]


def main() -> None:
    path, tcti, moment, *name = sys.argv[1:]
    index = os.environ.get("NV_INDEX")
    with recorder_of(Path(path), tcti, nv_index=int(index) if index else None) as recorder:
        if moment in IN_RECOVERY:
            dying_in_recovery(moment, recorder)
        first = moment.startswith("at_first")
        arm = next((one for one in MOMENTS if one.__name__ == moment), None)
        if arm and first:
            arm(recorder)
        begin(recorder)
        if arm and not first:
            arm(recorder)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for round_ in itertools.count() if moment == "never" else range(ROUNDS):
                names = ["-".join((*name, f"c{round_}", str(n))) for n in range(AT_ONCE)]
                wait([pool.submit(work, recorder, one) for one in names])


def work(recorder: Recorder, name: str) -> None:
    for event in (create(container=name), execute(container=name), deny(container=name)):
        recorder.append(event)
        with LOCK:
            os.write(1, f"{event.__struct_config__.tag} {name}\n".encode())


LOCK = threading.Lock()

if __name__ == "__main__":
    main()
