from __future__ import annotations

import json
import shutil
import subprocess
import sys
from signal import SIGINT, SIGKILL, SIGTERM

import pytest

from catena.cli.main import run
from catena.lab import tools
from catena.lab.units import Unit
from lab.founded import *  # noqa: F403 - fixtures
from living import assert_gone, await_that, children, processes_naming


def answer(capsys, *words) -> tuple[int, object]:
    status = run([*map(str, words), "-o", "json"])
    return status, json.loads(capsys.readouterr().out)


def code(capsys, *words) -> tuple[int, str]:
    status, document = answer(capsys, *words)
    assert document["error"]["remedy"]
    return status, document["error"]["code"]


def test_down_where_nothing_runs_is_fine_twice(tmp_path, capsys):
    for _ in range(2):
        assert answer(capsys, "lab", "down", "--dir", tmp_path / "lab") == (0, {"stopped": []})
    assert list(tmp_path.iterdir()) == []
    assert run(["lab", "down", "--dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "stopped: nothing was running\n"


@pytest.mark.parametrize("words", [("boot", "node-2"), ("attack", "all")])
def test_lab_that_is_down_is_said_and_nothing_is_made(tmp_path, capsys, words):
    folder = tmp_path / "lab"
    assert code(capsys, "lab", *words, "--dir", folder) == (2, "lab-down")
    assert list(tmp_path.iterdir()) == []


def test_unknown_attack_is_not_found(tmp_path, capsys):
    status, _ = code(capsys, "lab", "attack", "no-such", "--dir", tmp_path / "lab")
    assert status == 3


@pytest.mark.parametrize("verb", ["demo", "up"])
def test_folder_that_is_no_lab_is_not_touched(tmp_path, capsys, verb):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/PK.key").write_text("precious")
    assert code(capsys, "lab", verb, "--dir", tmp_path) == (2, "not-a-lab")
    assert (tmp_path / "keys/PK.key").read_text() == "precious"
    assert len(list(tmp_path.rglob("*"))) == 2


@pytest.mark.parametrize("verb", ["demo", "up"])
def test_file_in_place_of_the_lab_folder_is_a_clear_error(tmp_path, capsys, verb):
    (tmp_path / "lab").write_text("precious")
    status, _ = code(capsys, "lab", verb, "--dir", tmp_path / "lab")
    assert status == 3
    assert (tmp_path / "lab").read_text() == "precious"


def test_second_up_is_refused_while_the_lab_is_up(lab, capsys):
    lab.start_server()
    before = processes_naming(lab.workspace.folder)
    folder = lab.workspace.folder
    assert code(capsys, "lab", "up", "--dir", folder) == (2, "already-running")
    assert processes_naming(folder) == before


def test_second_up_is_refused_while_the_first_is_at_work(lab, capsys):
    with lab.claimed():
        assert code(capsys, "lab", "up", "--dir", lab.workspace.folder) == (2, "lab-busy")


def test_up_that_fails_after_the_server_started_takes_it_down_again(lab, capsys):
    """The release is no release: the server refuses it."""
    workspace = lab.workspace
    workspace.keyset.parent.mkdir()
    workspace.keyset.write_text("{}")
    workspace.release.mkdir()
    status, document = answer(capsys, "lab", "up", "--dir", workspace.folder)
    assert status != 0
    assert "reference import" in document["error"]["message"]
    assert processes_naming(workspace.folder) == {}
    assert answer(capsys, "lab", "down", "--dir", workspace.folder) == (0, {"stopped": []})


def test_down_ends_what_runs_and_says_what_it_was(lab, capsys):
    lab.start_server()
    lab.keep()
    folder = lab.workspace.folder
    assert answer(capsys, "lab", "down", "--dir", folder) == (0, {"stopped": ["server"]})
    assert answer(capsys, "lab", "down", "--dir", folder) == (0, {"stopped": []})
    assert processes_naming(folder) == {}


@pytest.fixture
def bootable(lab, manufactured):
    """The lab is up, and there is a machine to boot; its disk is empty."""
    workspace = lab.workspace
    workspace.release.mkdir()
    workspace.disk.write_bytes(bytes(1 << 20))
    workspace.varstore.parent.mkdir()
    shutil.copy(tools.FIRMWARE_VARS.path(), workspace.varstore)
    machine = workspace.machine_folder("node-2")
    machine.mkdir(parents=True)
    shutil.copytree(manufactured / "tpm", machine / "tpm")
    lab.start_server()
    return lab


@pytest.mark.parametrize("number", [SIGINT, SIGTERM, SIGKILL])
def test_boot_that_is_stopped_midway_takes_its_machine_with_it(bootable, number):
    folder = bootable.workspace.folder
    command = [sys.executable, "-m", "catena.cli.main", "lab", "boot", "node-2"]
    unit = Unit(bootable.workspace.run, "node-2")
    with subprocess.Popen([*command, "--dir", str(folder)], stderr=subprocess.DEVNULL) as boot:
        try:
            await_that(lambda: unit.running() and len(children(unit.running().pid)) == 2, "power")
            supervisor = unit.running().pid
            family = [supervisor, *children(supervisor).values()]
            boot.send_signal(number)
            assert boot.wait(timeout=20) == -number
        finally:
            boot.kill()
    assert_gone(family)
    bootable.require_up()


def test_machine_that_runs_is_not_started_again(bootable, capsys):
    unit = bootable.start_machine("node-2")
    console = bootable.workspace.hardware("node-2", 1).console
    console.write_text("what it printed")
    folder = bootable.workspace.folder
    assert code(capsys, "lab", "boot", "node-2", "--dir", folder) == (2, "already-running")
    assert console.read_text().startswith("what it printed")
    assert unit.running()


def test_machine_cannot_have_the_name_of_a_path(bootable, capsys):
    folder = bootable.workspace.folder
    assert code(capsys, "lab", "boot", "../keys", "--dir", folder) == (2, "bad-machine-name")
    bootable.require_up()
