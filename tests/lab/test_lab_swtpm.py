from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from catena.errors import ExitCode
from catena.lab import swtpm, tools
from catena.lab.process import ChildDied
from catena.lab.swtpm import TpmStateInUse, Vendor
from catena.osimage.tool import MissingTool, ToolFailed
from living import assert_gone, await_that, processes_naming

pytestmark = pytest.mark.tpm


@pytest.fixture
def state(manufactured, tmp_path, nothing_left):
    shutil.copytree(manufactured / "tpm", tmp_path / "tpm")
    return tmp_path / "tpm"


def test_bench_gives_a_tpm_that_answers_and_ends_with_its_block(state, tmp_path):
    device = pytest.importorskip("catena.tpm.device")
    with swtpm.bench(state, tmp_path / "log") as tcti, device.open_tpm(tcti) as tpm:
        assert tpm.ek_certificates()
        assert processes_naming(state)
    assert processes_naming(state) == {}


def test_state_that_a_tpm_holds_is_refused_to_a_second(state, tmp_path):
    with swtpm.bench(state, tmp_path / "log"):
        with pytest.raises(TpmStateInUse) as refused, swtpm.bench(state, tmp_path / "log"):
            pass
        with pytest.raises(TpmStateInUse):
            swtpm.start_for_machine(state, tmp_path / "tpm.sock", tmp_path / "log")
    assert refused.value.exit_code is ExitCode.INTERNAL
    with swtpm.bench(state, tmp_path / "log"):
        pass


def test_tpm_that_cannot_start_says_why(state, tmp_path):
    too_long = tmp_path / ("x" * 108)
    with pytest.raises(ChildDied, match=r"swtpm ended: .*[Pp]ath.* too long.*status 1"):
        swtpm.start_for_machine(state, too_long, tmp_path / "log")


def test_tpm_that_opens_no_door_in_time_is_ended(state, tmp_path, monkeypatch):
    monkeypatch.setattr(swtpm, "_READY_SECONDS", -1.0)
    with pytest.raises(ToolFailed, match="not ready"):
        swtpm.start_for_machine(state, tmp_path / "tpm.sock", tmp_path / "log")
    assert processes_naming(state) == {}


def test_manufacture_again_changes_nothing(state, manufactured):
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    swtpm.manufacture(state, Vendor(manufactured / "vendor"))
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before


def test_manufacture_with_a_missing_tool_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingTool):
        swtpm.manufacture(tmp_path / "m/tpm", Vendor(tmp_path / "vendor"))
    assert list((tmp_path / "m").iterdir()) == []


def test_manufacture_that_takes_too_long_leaves_nothing(tmp_path, monkeypatch, manufactured):
    monkeypatch.setattr(swtpm, "_SETUP_SECONDS", 0.05)
    with pytest.raises(ToolFailed, match="swtpm_setup took longer"):
        swtpm.manufacture(tmp_path / "m/tpm", Vendor(tmp_path / "vendor"))
    assert list((tmp_path / "m").iterdir()) == []
    await_that(lambda: processes_naming(tmp_path) == {}, "nothing left")


@pytest.mark.skipif(os.geteuid() != 0, reason="process namespaces need root")
def test_manufacture_that_was_killed_runs_on_nowhere_and_can_be_repeated(tmp_path, manufactured):
    vendor = Vendor(tmp_path / "vendor")
    shutil.copytree(manufactured / "vendor", vendor.folder)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from catena.lab import swtpm\n"
        "swtpm.manufacture(Path(sys.argv[1]), swtpm.Vendor(Path(sys.argv[2])))\n"
    )
    state = tmp_path / "m/tpm"
    with subprocess.Popen([sys.executable, "-c", code, state, vendor.folder]) as maker:
        await_that(
            lambda: any("--tpmstate" in words for words in processes_naming(tmp_path).values()),
            "swtpm_setup",
        )
        family = processes_naming(tmp_path)
        maker.send_signal(signal.SIGKILL)
    assert_gone(family)
    await_that(lambda: processes_naming(tmp_path) == {}, "nothing left")
    assert not state.exists()
    swtpm.manufacture(state, vendor)
    assert [path.name for path in state.parent.iterdir()] == ["tpm"]


def test_vendor_roots_are_what_a_server_can_be_told_to_accept(manufactured):
    assert all(root.read_bytes().startswith(b"-----BEGIN") for root in _roots(manufactured))
    assert tools.SWTPM_LOCALCA.find()


def _roots(manufactured):
    return Vendor(manufactured / "vendor").roots
