"""Fuzz one target, or give it one input again.

python tests/fuzz/fuzz_one.py TARGET [libFuzzer's options and folders]
python tests/fuzz/fuzz_one.py TARGET --again FILE
"""

from __future__ import annotations

import resource
import sys
import time
import tracemalloc
from pathlib import Path

import fuzz_path  # noqa: F401

SLOW_SECONDS = 4.0
"""While fuzzing: counting branches makes Python several times slower than it is."""


class TooCostly(AssertionError):
    """An input that takes more time or memory than any below 1 MB may."""


def watched(target):
    """``target``, but an input that clearly costs too much is a finding."""
    from fuzz_probe import LIMIT_BYTES

    def run(data):
        started, peak = time.thread_time(), _peak()
        target(data)
        if time.thread_time() - started > SLOW_SECONDS or _peak() - peak > 2 * LIMIT_BYTES:
            raise TooCostly(f"{time.thread_time() - started:.1f} s, {_peak() - peak} bytes")

    return run


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def again(target, data):
    """One input without instrumentation: a traceback, or what it costs."""
    started = time.process_time()
    target(data)
    seconds = time.process_time() - started
    tracemalloc.start()
    target(data)
    peak = tracemalloc.get_traced_memory()[1]
    print(f"accepted or refused as it should be: {seconds:.3f} s, {peak} bytes")


def main():
    name, *options = sys.argv[1:]
    if options[:1] == ["--again"]:
        from fuzz_targets import TARGETS

        again(TARGETS[name], Path(options[1]).read_bytes())
        return
    import atheris

    with atheris.instrument_imports(include=["catena"]):
        from fuzz_targets import TARGETS
    atheris.Setup([sys.argv[0], *options], watched(TARGETS[name]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
