"""Parts of a lab, without an operating system: a machine with an empty disk, a trust service."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from catena.lab import swtpm, tools
from catena.lab.operator import Operator
from catena.lab.running import Lab
from catena.lab.swtpm import Vendor
from catena.lab.tree import Cache
from catena.lab.units import MachineSpec, Unit, UnitSpec
from catena.lab.workspace import Workspace
from living import assert_gone, children, processes_naming

MISSING = [tool.name for tool in tools.MACHINE_TOOLS if tool.find() is None]


@pytest.fixture
def nothing_left(tmp_path):
    """After the test, no process names its folder."""
    yield
    left = processes_naming(tmp_path)
    assert left == {}


@pytest.fixture(scope="session")
def manufactured(tmp_path_factory):
    """A TPM state and its vendor, to be copied."""
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}")
    folder = tmp_path_factory.mktemp("manufactured")
    vendor = Vendor(folder / "vendor")
    swtpm.manufacture(folder / "tpm", vendor)
    return folder


@dataclass(frozen=True)
class Bench:
    """A run folder, and the specification of a machine whose disk is empty."""

    run: Path
    spec: UnitSpec

    @property
    def unit(self) -> Unit:
        return Unit(self.run, self.spec.name)

    def family(self) -> dict[str, int]:
        """The living processes of the running unit, once its machine has power."""
        running = self.unit.running()
        assert running is not None
        return {"supervisor": running.pid, **children(running.pid)}

    def powered(self) -> bool:
        self.unit.check()
        return {"swtpm", "qemu-system-x86_64"} <= self.family().keys()

    def start_elsewhere(self, then: str) -> subprocess.Popen[bytes]:
        """Start the unit from another process, which then does what is said."""
        code = (
            "import sys, time, msgspec\n"
            "from pathlib import Path\n"
            "from catena.lab.units import Unit, UnitSpec\n"
            "spec = msgspec.json.decode(sys.argv[1], type=UnitSpec)\n"
            "unit = Unit(Path(spec.folder), spec.name)\n"
            "unit.start(spec)\n"
            f"{then}\n"
        )
        return subprocess.Popen([sys.executable, "-c", code, msgspec.json.encode(self.spec)])


@pytest.fixture
def bench(tmp_path, manufactured, nothing_left):
    run, machine = tmp_path / "run", tmp_path / "machine"
    run.mkdir()
    machine.mkdir()
    shutil.copytree(manufactured / "tpm", machine / "tpm")
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    spec = UnitSpec(
        name="box",
        folder=str(run),
        machine=MachineSpec(
            folder=str(machine),
            disk=str(tmp_path / "disk.img"),
            varstore=str(tools.FIRMWARE_VARS.path()),
            vendor=str(manufactured / "vendor"),
            server_port=1,
            memory_mib=256,
            sealed_copy=None,
        ),
    )
    made = Bench(run, spec)
    yield made
    pids = list(processes_naming(tmp_path))
    made.unit.stop()
    if pids:
        assert_gone(pids)


@pytest.fixture(scope="session")
def founded(tmp_path_factory):
    """A lab folder with keys and a trust service, and nothing to boot."""
    folder = tmp_path_factory.mktemp("founded") / "lab"
    workspace = Workspace(folder, Cache(folder))
    workspace.found()
    operator = Operator(workspace.profile)
    operator.run("keys", "init", workspace.keys)
    operator.run(
        "server", "init", workspace.server, "--keys", workspace.keys, "--name", "127.0.0.1"
    )
    return folder


@pytest.fixture
def lab(founded, tmp_path, nothing_left):
    """The founded lab as one's own copy, on a free port."""
    folder = tmp_path / "lab"
    shutil.copytree(founded, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = folder / "server/server.toml"
    settings.write_text(settings.read_text().replace(":8440", f":{port}"))
    workspace = Workspace(folder, Cache(tmp_path / "cache"))
    made = Lab(workspace, Operator(workspace.profile))
    yield made
    made.stop_started()
    made.down()
