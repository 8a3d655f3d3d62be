from __future__ import annotations

import subprocess
import sys

import pytest

from catena.lab import process
from catena.lab.process import Child, ChildDied, catena_command
from living import assert_gone, await_that, lives


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def test_child_ends_with_its_block(tmp_path):
    with Child("sleeper", shell("exec sleep 600"), log=tmp_path / "log") as child:
        child.check()
        assert child.running
    assert not lives(child.pid)


def test_child_ends_when_the_block_fails(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        Child("sleeper", shell("exec sleep 600"), log=tmp_path / "log") as child,
    ):
        raise ZeroDivisionError
    assert not lives(child.pid)


def test_child_that_will_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "_GRACE", 0.1)
    log = tmp_path / "log"
    child = Child("deaf", shell("trap '' TERM; echo deaf; while :; do sleep 1; done"), log=log)
    await_that(lambda: log.read_bytes() == b"deaf\n", "trap set")
    child.stop()
    assert not lives(child.pid)
    child.stop()


def test_death_is_an_error_with_its_own_last_words_on_one_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("words of an earlier run\n")
    child = Child("box", shell("echo no; echo room >&2; exit 7"), log=log)
    await_that(lambda: not child.running, "end")
    with pytest.raises(ChildDied) as died:
        child.check()
    assert died.value.message == "box ended: no room"
    assert died.value.got == "status 7"


def test_death_without_words_names_the_signal(tmp_path):
    child = Child("box", shell("kill -KILL $$"), log=tmp_path / "log")
    await_that(lambda: not child.running, "end")
    with pytest.raises(ChildDied, match=r"box ended: without a word \(got SIGKILL\)"):
        child.check()


def test_child_dies_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from catena.lab.process import Child\n"
        "child = Child('sleeper', ['sleep', '600'], log=Path(sys.argv[1]))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "log"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
    assert_gone([pid])


def test_catena_command_is_this_very_catena():
    done = subprocess.run(catena_command("--version"), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("catena")
