from __future__ import annotations

import socket

import pytest

from catena.errors import ExitCode
from catena.lab.operator import Operator
from catena.lab.running import Lab, LabBusy, LabDown
from catena.lab.tree import Cache
from catena.lab.units import AlreadyRunning, UnitFailed
from catena.lab.workspace import BadMachineName, NotALab, Workspace
from living import processes_naming


def test_server_answers_when_start_returns_and_runs_until_stopped(lab):
    lab.start_server()
    socket.create_connection(("127.0.0.1", lab.server_port()), timeout=1).close()
    lab.require_up()
    with pytest.raises(AlreadyRunning):
        lab.refuse_running()
    lab.stop_started()
    with pytest.raises(LabDown):
        lab.require_up()
    # What it said then does not count for the next one.
    with socket.create_server(("127.0.0.1", lab.server_port())), pytest.raises(UnitFailed):
        lab.start_server()


def test_kept_server_is_ended_by_down_and_down_again_finds_nothing(lab):
    lab.start_server()
    lab.keep()
    lab.stop_started()
    lab.require_up()
    assert lab.down() == ["server"]
    assert lab.down() == []


def test_port_in_use_is_a_clear_error_and_nothing_stays(lab):
    with socket.create_server(("127.0.0.1", lab.server_port())):
        with pytest.raises(
            UnitFailed, match=r"the address is in use .*\[address-in-use\]"
        ) as failed:
            lab.start_server()
        lab.stop_started()
    assert failed.value.exit_code is ExitCode.INTERNAL
    assert "--listen" in failed.value.message
    assert processes_naming(lab.workspace.folder) == {}


def test_failure_inside_a_claim_stops_what_was_started(lab):
    def start_and_fail():
        with lab.claimed():
            lab.start_server()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        start_and_fail()
    assert processes_naming(lab.workspace.folder) == {}


def test_two_commands_cannot_start_things_in_one_lab(lab):
    other = Lab(lab.workspace, lab.operator)
    with lab.claimed():
        with pytest.raises(LabBusy) as refused, other.claimed():
            pass
        assert refused.value.exit_code is ExitCode.USAGE
    with other.claimed():
        pass


def test_blocking_error_of_the_work_itself_is_not_taken_for_a_busy_lab(lab):
    with pytest.raises(BlockingIOError), lab.claimed():
        raise BlockingIOError


def test_abandoned_lab_starts_nothing_more(lab):
    lab.abandon()
    with pytest.raises(LabDown):
        lab.start_server()
    with pytest.raises(LabDown):
        lab.start_machine("node-2")


@pytest.mark.parametrize("name", ["server", "", "..", "a/b", "/etc", "Node", "-x", "a" * 41, "a\n"])
def test_machine_names_that_are_paths_or_units_are_refused(lab, name):
    with pytest.raises(BadMachineName) as refused:
        lab.start_machine(name)
    assert refused.value.exit_code is ExitCode.USAGE


def test_folder_that_holds_something_else_is_no_lab_and_stays_as_it_is(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/PK.key").write_text("precious")
    workspace = Workspace(tmp_path, Cache(tmp_path))
    for use in (workspace.found, workspace.clear, lambda: _claim(workspace)):
        with pytest.raises(NotALab):
            use()
    assert [path.name for path in tmp_path.rglob("*")] == ["keys", "PK.key"]


def test_cleared_lab_is_empty_and_still_a_lab(lab, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (lab.workspace.folder / "link").symlink_to(outside)
    lab.workspace.clear()
    assert [path.name for path in lab.workspace.folder.iterdir()] == [".catena-lab"]
    assert (outside / "precious").exists()
    lab.workspace.found()


def _claim(workspace: Workspace) -> None:
    with Lab(workspace, Operator(workspace.profile)).claimed():
        pass
