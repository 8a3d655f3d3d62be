from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import msgspec
import pytest

from catena.errors import ExitCode
from catena.lab.units import AlreadyRunning, Running, Unit, UnitFailed, all_units
from living import assert_gone, await_that, lives

SLEEP = "time.sleep(600)"


def test_unit_dies_with_a_starter_that_is_killed_before_it_says_keep(bench):
    with bench.start_elsewhere(SLEEP) as starter:
        await_that(lambda: bench.unit.running() and bench.powered(), "power")
        family = bench.family()
        starter.kill()
    assert_gone(family.values())
    assert bench.unit.log.read_text() == "the command that started this unit is gone\n"
    assert bench.unit.running() is None


def test_unit_dies_with_a_starter_that_is_killed_at_once(bench):
    with bench.start_elsewhere("print('started', flush=True)\n" + SLEEP) as starter:
        await_that(bench.unit.running, "supervisor")
        running = bench.unit.running()
        starter.kill()
    assert_gone([running.pid])


def test_kept_unit_outlives_its_starter_and_stop_ends_all_of_it(bench):
    with bench.start_elsewhere("unit.keep()") as starter:
        assert starter.wait() == 0
    await_that(bench.powered, "power")
    family = bench.family()
    bench.unit.check()
    assert bench.unit.stop() is True
    assert not any(map(lives, family.values()))
    assert bench.unit.log.read_text() == "ended by SIGTERM\n"
    assert bench.unit.stop() is False
    assert all_units(bench.run) == []


def test_machine_dies_with_a_supervisor_that_is_killed(bench):
    unit = bench.unit
    unit.start(bench.spec)
    unit.keep()
    await_that(bench.powered, "power")
    family = bench.family()
    os.kill(family["supervisor"], signal.SIGKILL)
    assert_gone(family.values())
    with pytest.raises(UnitFailed):
        unit.check()


@pytest.mark.parametrize("victim", ["swtpm", "qemu-system-x86_64"])
@pytest.mark.parametrize("kept", [True, False])
def test_machine_whose_part_dies_goes_off_and_says_which(bench, victim, kept):
    unit = bench.unit
    unit.start(bench.spec)
    if kept:
        unit.keep()
    await_that(bench.powered, "power")
    family = bench.family()
    os.kill(family[victim], signal.SIGKILL)
    assert_gone(family.values())
    with pytest.raises(UnitFailed) as failed:
        unit.check()
    name = victim.partition("-")[0]
    assert f"box ended: {name} ended: without a word (got SIGKILL)" in failed.value.message
    assert str(unit.log) in failed.value.message
    assert failed.value.exit_code is ExitCode.INTERNAL
    unit.keep()  # too late, and no error of its own


def test_second_start_is_refused_and_the_first_runs_on(bench):
    unit = bench.unit
    unit.start(bench.spec)
    before = unit.running()
    with pytest.raises(AlreadyRunning) as refused:
        bench.unit.start(bench.spec)
    assert refused.value.exit_code is ExitCode.USAGE
    assert bench.unit.running() == before
    assert unit.stop() is True


def test_machine_whose_tpm_is_in_use_does_not_start(bench):
    first = bench.unit
    first.start(bench.spec)
    # swtpm locks its state when the machine first speaks to it.
    await_that(lambda: bench.powered() and held(bench), "power")
    second = Unit(bench.run, "twin")
    second.start(msgspec.structs.replace(bench.spec, name="twin"))
    await_that(lambda: not second.running(), "refusal")
    with pytest.raises(UnitFailed, match=r"the TPM state .* is in use"):
        second.check()
    assert first.running()
    second.stop()


def held(bench) -> bool:
    with (Path(bench.spec.machine.folder) / "tpm/.lock").open("r+") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_recycled_process_id_is_not_mistaken_for_the_unit(tmp_path):
    unit = Unit(tmp_path, "box")
    stale = Running(pid=os.getpid(), started=1)
    (tmp_path / "box.json").write_bytes(msgspec.json.encode(stale))
    (tmp_path / "box.spec.json").write_bytes(b"{}")
    assert unit.running() is None
    assert unit.stop() is False  # or this test would not live to say so
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", [b"", b"{", b'{"pid": "x"}', b"[]"])
def test_damaged_state_counts_as_not_running(tmp_path, state):
    (tmp_path / "box.json").write_bytes(state)
    unit = Unit(tmp_path, "box")
    assert unit.running() is None
    with pytest.raises(UnitFailed, match="box ended: without a word"):
        unit.check()


def test_unit_whose_state_cannot_be_written_does_not_run(bench, tmp_path):
    (bench.run / "box.json").symlink_to(tmp_path / "nowhere" / "box.json")
    unit = bench.unit
    with pytest.raises(FileNotFoundError):
        unit.start(bench.spec)
    log = "the command that started this unit is gone\n"
    await_that(lambda: unit.log.read_text() == log, "end of the unit")


def test_missing_program_ends_the_unit_with_its_name(bench, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    unit = bench.unit
    unit.start(bench.spec)
    await_that(lambda: not unit.running(), "end")
    with pytest.raises(UnitFailed, match="cannot find swtpm"):
        unit.check()


def test_machines_are_stopped_before_the_server(tmp_path):
    for name in ("server", "node-1", "zebra"):
        (tmp_path / f"{name}.spec.json").touch()
    assert [unit.name for unit in all_units(tmp_path)] == ["node-1", "zebra", "server"]
