"""What hostile input may cost: no reader takes more than 1 s or 64 MB for an input below 1 MB.

Time is the processor's, never the clock's on the wall: what is asserted is the work that an input
makes, not how busy the machine is; a slow first try gets a second one. Memory is the peak of what
Python allocates, beside the input itself; of parsers only, because what stands above them keeps
little but what they return.
"""

from __future__ import annotations

import gc
import time
import tracemalloc

import pytest
from costly_inputs import costly
from fuzz_probe import LIMIT_BYTES, LIMIT_INPUT, LIMIT_SECONDS
from fuzz_targets import TARGETS

from catena.errors import FormatError

FAST_SECONDS = 0.01
"""Nothing that takes less has made many objects, or copied much."""

ATTEMPTS = 8
"""How often an input that seems too costly is tried again: a shared processor runs at half speed
for seconds at a time, and the input costs what it takes when nothing disturbs it."""

PROBES = [probe for target in TARGETS.values() for probe in target.probes]


def seconds(probe, data):
    """CPU time of this process for one input, without collecting other tests' garbage."""
    gc.freeze()
    try:
        started = time.process_time()
        probe(data)
        return time.process_time() - started
    finally:
        gc.unfreeze()


def peak(probe, data):
    """Bytes that Python had allocated at most."""
    gc.collect()
    tracemalloc.start()
    try:
        probe(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_hostile_input_below_one_megabyte_costs_little(probe):
    for what, data in costly(probe):
        assert len(data) <= LIMIT_INPUT, what
        spent = seconds(probe, data)
        for _ in range(ATTEMPTS):
            if spent <= LIMIT_SECONDS:
                break
            spent = min(spent, seconds(probe, data))
        assert spent <= LIMIT_SECONDS, what
        if probe.allowed is FormatError and spent > FAST_SECONDS:
            assert peak(probe, data) <= LIMIT_BYTES, what
