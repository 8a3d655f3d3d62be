"""A machine with an empty disk, and the fixtures of a lab without an operating system."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from catena.lab import tools
from catena.lab.units import MachineSpec, Unit, UnitSpec
from lab.founded import *  # noqa: F403 - fixtures
from living import assert_gone, children, processes_naming


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
