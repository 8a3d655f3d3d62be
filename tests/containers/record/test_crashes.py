"""The crash matrix: a gate killed at every moment of its work, over a real TPM.

Whatever the moment: recovery makes record and TPM agree again, in every bank, nothing that was
acknowledged is missing, and the next gate goes on.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGKILL

import crashing
import pytest
from recording import agreed, begin, gate_of, kinds, recorder_of

import small_indices
from catena.containers.record.batches import MAX_BATCH
from catena.containers.record.failure import RecorderStopped
from catena.containers.record.refused import RecordMismatch
from catena.containers.record.replay import read_record
from catena.errors import CatenaError
from small_records import create, deny, leave
from swtpm import needs_swtpm

pytestmark = [pytest.mark.tpm, needs_swtpm]

PROGRAM = Path(crashing.__file__)
ENVIRONMENT = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}


def killed(path, machine, moment, nv_index=None):
    """Run a gate until its moment; what it acknowledged."""
    environment = ENVIRONMENT if nv_index is None else {**ENVIRONMENT, "NV_INDEX": str(nv_index)}
    done = subprocess.run(
        [sys.executable, PROGRAM, path, machine.tcti, moment],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert done.returncode == -SIGKILL, done.stderr
    return [tuple(line.split()) for line in done.stdout.splitlines()]


def told(events):
    """The events as the gate acknowledges them."""
    found = (
        (one.event.__struct_config__.tag, getattr(one.event, "container", "")) for one in events
    )
    return [one for one in found if one[1]]


LEFT = {
    "at_first_write": "torn",
    "at_first_extend": "pending",
    "before_write": "nothing",
    "mid_write": "torn",
    "mid_batch": "torn",
    "before_sync": "pending",
    "before_extend": "pending",
    "between_extends": "pending",
    "after_extend": "anything",
    "before_truncate": "torn",
    "after_truncate": "nothing",
}
"""What the killed gate leaves: an event cut short, events that were not extended, or neither."""


def test_every_moment_has_an_expectation():
    assert [one.__name__ for one in crashing.MOMENTS] == list(LEFT)


@pytest.mark.parametrize("nv_index", [None, small_indices.TWO], ids=["pcr", "index"])
@pytest.mark.parametrize(("moment", "left"), LEFT.items(), ids=LEFT)
def test_a_gate_killed_at_any_moment_loses_nothing(path, machine, moment, left, nv_index):
    acknowledged = killed(path, machine, moment, nv_index)
    with recorder_of(path, machine.tcti, nv_index=nv_index) as recorder:
        found = recorder.recover()
        remains = "torn" if found.cut else "pending" if found.extended else "nothing"
        assert left in {remains, "anything"}
        events = agreed(path, recorder._tpm) if found.events else ()
        recorded = told(events)
        assert set(acknowledged) <= set(recorded)
        assert len(recorded) == len(set(recorded))
        # What was not acknowledged and is there all the same was one batch, at most.
        assert len(recorded) - len(acknowledged) <= MAX_BATCH
        recorder.append(recorder.gate_start("after"))
        recorder.append(deny(container="after"))
        assert kinds(agreed(path, recorder._tpm))[len(events) :] == ["gate-start", "deny"]


@pytest.mark.parametrize("before", ["mid_batch", "before_extend"])
@pytest.mark.parametrize("moment", crashing.IN_RECOVERY)
def test_a_recovery_that_is_killed_is_recovered_from(path, machine, before, moment):
    acknowledged = killed(path, machine, before)
    if (before, moment) == ("before_extend", "cut"):
        path.write_bytes(path.read_bytes() + path.read_bytes()[:99])  # torn, too
    killed(path, machine, moment)
    with recorder_of(path, machine.tcti) as recorder:
        begin(recorder)
        assert set(acknowledged) <= set(told(agreed(path, recorder._tpm)))


def test_gates_that_are_killed_under_load_again_and_again_lose_nothing(path, machine):
    acknowledged = []
    for life in range(5):
        command = [sys.executable, PROGRAM, path, machine.tcti, "never", f"life{life}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as gate:
            try:
                lines = [gate.stdout.readline() for _ in range(20 + 7 * life)]
            finally:
                gate.kill()
            lines += [line for line in gate.stdout if line.endswith("\n")]
        acknowledged += [tuple(line.split()) for line in lines]
    with recorder_of(path, machine.tcti) as recorder:
        begin(recorder)
        events = agreed(path, recorder._tpm)
    assert set(acknowledged) <= set(told(events))
    assert kinds(events).count("gate-start") == 6
    assert len(acknowledged) >= 5 * 20


# The TPM goes ------------------------------------------------------------------------------


def outcome(recorder, event):
    try:
        recorder.append(event)
    except CatenaError as error:
        return error
    return None


def test_a_tpm_that_goes_in_the_middle_stops_everything(path, machine):
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create())
        real, calls = recorder._tpm.extend, []

        def extend(digests):
            calls.append(digests)
            if len(calls) == 3:
                machine.stop()
            real(digests)

        recorder._tpm.extend = extend
        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda n: outcome(recorder, deny(container=f"c{n}")), range(40)))
        assert sum(error is None for error in said) == 2
        assert {type(error) for error in said} == {type(None), RecorderStopped}
        assert all("TPM stopped answering" in str(error) for error in said if error)
        size = path.stat().st_size
        for event in (deny(), leave(), recorder.gate_start("again")):
            assert isinstance(outcome(recorder, event), RecorderStopped)
        assert path.stat().st_size == size
        assert len(calls) == 3


def test_no_refusal_of_the_tpm_is_passed_over(path, machine):
    """PCR 17 takes no extend from software: the answer of the TPM reaches who waits."""
    with recorder_of(path, machine.tcti, pcr=17) as recorder:
        recorder.recover()
        for _ in range(2):
            with pytest.raises(RecorderStopped, match="TPM2_PCR_Extend failed"):
                recorder.append(recorder.gate_start("test"))


def test_a_tpm_that_comes_back_as_it_was_is_recovered_from(path, machine):
    """The connection broke, not the TPM: what was written is extended, then work goes on."""
    with gate_of(path, machine.tcti) as recorder:
        real = recorder._tpm.extend

        def broken(digests):
            raise CatenaError("cut off")

        recorder._tpm.extend = broken
        assert isinstance(outcome(recorder, create()), RecorderStopped)
        recorder._tpm.extend = real
        assert isinstance(outcome(recorder, create()), RecorderStopped)
        assert begin(recorder).extended == 1
        recorder.append(leave())
        agreed(path, recorder._tpm)


def test_an_error_that_nobody_expected_stops_everything_too(path, machine):
    with gate_of(path, machine.tcti) as recorder:

        def interrupted(digests):
            raise KeyboardInterrupt

        recorder._tpm.extend = interrupted
        with pytest.raises(KeyboardInterrupt):
            recorder.append(create())
        assert isinstance(outcome(recorder, create()), RecorderStopped)


# The disk is full --------------------------------------------------------------------------


def test_a_full_disk_refuses_and_extends_nothing(small_disk, machine):
    path = small_disk / "state/record.cel"
    with gate_of(path, machine.tcti) as recorder:
        recorder.append(create())
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="space"):
            ballast.write_bytes(bytes(1 << 20))
        said, count = [], 3
        while not said:
            error = outcome(recorder, create())
            said += [error] if error else []
            count += error is None
        assert [one.code for one in said] == ["record-unwritable"]
        assert "No space left" in str(said[0])
        assert len(agreed(path, recorder._tpm)) == count
        with ThreadPoolExecutor(8) as pool:
            many = list(pool.map(lambda n: outcome(recorder, create(container=f"c{n}")), range(8)))
        assert {one.code for one in many} == {"record-unwritable"}
        assert len(agreed(path, recorder._tpm)) == count
        ballast.unlink()
        recorder.append(leave())
        assert len(agreed(path, recorder._tpm)) == count + 1


def test_a_file_that_cannot_be_taken_back_stops_everything(path, machine, monkeypatch):
    with gate_of(path, machine.tcti) as recorder:

        def fail(*words):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("os.fdatasync", fail)
        assert isinstance(outcome(recorder, create()), RecorderStopped)
        monkeypatch.undo()
        error = outcome(recorder, create())
        assert isinstance(error, RecorderStopped)
        assert "cannot take" in str(error)
        begin(recorder)
        agreed(path, recorder._tpm)


def test_a_sync_that_failed_leaves_no_event(path, machine, monkeypatch):
    import os

    with gate_of(path, machine.tcti) as recorder:
        real, calls = os.fdatasync, []

        def fail_once(descriptor):
            calls.append(descriptor)
            if len(calls) == 1:
                raise OSError(5, "Input/output error")
            real(descriptor)

        monkeypatch.setattr("os.fdatasync", fail_once)
        assert outcome(recorder, create()).code == "record-unwritable"
        assert kinds(agreed(path, recorder._tpm)) == ["gate-start", "policy"]
        recorder.append(create())
        agreed(path, recorder._tpm)


def test_acknowledged_events_that_are_gone_are_missed(path, machine):
    """The reverse of the matrix: a record that lost what was acknowledged is no crash."""
    killed(path, machine, "after_extend")
    wire = path.read_bytes()
    path.write_bytes(wire[: read_record(wire)[2].offset])
    with recorder_of(path, machine.tcti) as recorder, pytest.raises(RecordMismatch):
        recorder.recover()
