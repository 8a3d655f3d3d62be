"""A running lab: the trust service and its machines as background units, and what they reach."""

from __future__ import annotations

import fcntl
import os
import time
import tomllib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from catena.errors import UsageError
from catena.lab.machine import MachineTimeout, plain_console
from catena.lab.operator import CommandRefused, Operator
from catena.lab.units import AlreadyRunning, MachineSpec, Unit, UnitSpec, all_units
from catena.lab.workspace import SERVER, Workspace

_SERVER_SECONDS = 30.0
_POLL_SECONDS = 0.5
_READY = b"catena trust service at "

Node = dict[str, Any]


class LabDown(UsageError):
    """A command that needs a running lab."""

    code = "lab-down"
    remedy = "Start it: catena lab up --yes."


class LabBusy(UsageError):
    """Two commands at once would start things in the same lab."""

    code = "lab-busy"
    remedy = "Wait until the other `catena lab` command is done, or give --dir another folder."


class Lab:
    """The units of one workspace. Nothing started here outlives a failure before ``keep``."""

    def __init__(self, workspace: Workspace, operator: Operator) -> None:
        self.workspace = workspace
        self.operator = operator
        self._started: list[Unit] = []
        self._abandoned = False

    def refuse_running(self) -> None:
        """Raise ``AlreadyRunning`` if any unit of this workspace runs."""
        for unit in all_units(self.workspace.run):
            if unit.running():
                raise AlreadyRunning(f"this lab is up already: {unit.name} runs")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold this lab: of two commands that start things in it, the second is refused.

        Whatever was started and not kept is stopped at the end. Raises ``LabBusy`` or
        ``NotALab``.
        """
        self.workspace.found()
        # The folder itself is locked: nothing to leave behind, and gone with this process.
        claim = os.open(self.workspace.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(claim)
            yield
        finally:
            self.stop_started()
            os.close(claim)

    def require_up(self) -> None:
        """Raise ``LabDown`` unless the trust service runs."""
        if not self.unit(SERVER).running():
            raise LabDown("this lab is not up", got=str(self.workspace.folder))

    def start_server(self) -> None:
        """Start the trust service and wait until it answers."""
        self._refuse_abandoned()
        unit = Unit(self.workspace.run, SERVER)
        # Its own word that it is ready: on its port somebody else might answer.
        announced = self.workspace.run / "server.out"
        announced.unlink(missing_ok=True)
        unit.start(
            UnitSpec(
                name=SERVER,
                folder=str(self.workspace.run.absolute()),
                server_folder=str(self.workspace.server.absolute()),
            )
        )
        self._started.append(unit)
        deadline = time.monotonic() + _SERVER_SECONDS
        while not (announced.exists() and _READY in announced.read_bytes()):
            unit.check()
            if time.monotonic() > deadline:
                raise MachineTimeout(f"the trust service does not answer (log: {unit.log})")
            time.sleep(0.05)

    def server_port(self) -> int:
        """The port that the server listens on."""
        settings = tomllib.loads((self.workspace.server / "server.toml").read_text())
        return int(str(settings["listen"]).rpartition(":")[2])

    def start_machine(
        self, name: str, *, disk: Path | None = None, varstore: Path | None = None
    ) -> Unit:
        """Boot a machine of this lab; other ``disk`` and ``varstore`` are for attacks."""
        self._refuse_abandoned()
        hardware = self.workspace.hardware(name, self.server_port(), disk=disk, varstore=varstore)
        unit = Unit(self.workspace.run, name)
        unit.refuse_running()
        hardware.folder.mkdir(parents=True, exist_ok=True)
        hardware.console.write_bytes(b"")
        unit.start(
            UnitSpec(
                name=name,
                folder=str(self.workspace.run.absolute()),
                machine=MachineSpec(
                    folder=str(hardware.folder),
                    disk=str(hardware.disk),
                    varstore=str(hardware.varstore),
                    vendor=str(hardware.vendor.folder),
                    server_port=hardware.server_port,
                    memory_mib=hardware.memory_mib,
                    sealed_copy=_text(hardware.sealed_copy),
                    data_disk=_text(hardware.data_disk),
                    orders=_text(hardware.orders),
                ),
            )
        )
        self._started.append(unit)
        return unit

    def unit(self, name: str) -> Unit:
        """A unit by name, running or not."""
        return Unit(self.workspace.run, name)

    def keep(self) -> None:
        """Let everything that was started here run on after this process."""
        for unit in self._started:
            unit.keep()
        self._started.clear()

    def stop_started(self) -> None:
        """Stop what was started here and not kept, newest first."""
        for unit in reversed(self._started):
            unit.stop()
        self._started.clear()

    def abandon(self) -> None:
        """Stop what was started here and start nothing more: work in other threads ends soon."""
        self._abandoned = True
        self.stop_started()

    def _refuse_abandoned(self) -> None:
        if self._abandoned:
            raise LabDown("this lab is being taken down")

    def down(self) -> list[str]:
        """Stop every unit of this workspace; returns the names of those that ran."""
        stopped = [unit.name for unit in all_units(self.workspace.run) if unit.stop()]
        self._started.clear()
        return stopped

    def console(self, name: str) -> str:
        """The serial console of a machine, as text."""
        return plain_console(self.workspace.machine_folder(name) / "console.log")

    def nodes(self) -> list[Node]:
        """All nodes as the server lists them."""
        listed: list[Node] = self.operator.run("node", "list")
        return listed

    def node(self, name: str) -> Node | None:
        """A node by the server's name for it, or None if it has none such."""
        try:
            shown: Node = self.operator.run("node", "show", name)
        except CommandRefused as error:
            if error.code in {"unknown-node", "not-found"}:
                return None
            raise
        return shown

    def wait_attested(self, name: str, *, since: str | None, seconds: float) -> Node:
        """Wait until a named node of the first machine has attested after ``since``."""
        return self.wait_for_node(
            lambda nodes: next(
                (one for one in nodes if one["name"] == name and one["last_attested"] != since),
                None,
            ),
            machine=name,
            seconds=seconds,
            what=f"attestation of {name}",
        )

    def wait_stranger(self, machine: str, known: Collection[str], *, seconds: float) -> Node:
        """Wait until a node whose id is not ``known`` has enrolled and attested."""
        return self.wait_for_node(
            lambda nodes: next(
                (one for one in nodes if one["id"] not in known and one["last_attested"]), None
            ),
            machine=machine,
            seconds=seconds,
            what=f"enrolment of {machine}",
        )

    def last_attested(self, name: str) -> str | None:
        """When a named node attested last, as the server writes it."""
        node = self.node(name)
        return None if node is None else node["last_attested"]

    def wait_for_node(
        self,
        find: Callable[[list[Node]], Node | None],
        *,
        machine: str,
        seconds: float,
        what: str,
    ) -> Node:
        """Poll the server until ``find`` picks a node. Raises ``MachineTimeout``."""
        unit = self.unit(machine)
        deadline = time.monotonic() + seconds
        while True:
            found = find(self.nodes())
            if found is not None:
                return found
            unit.check()
            if time.monotonic() > deadline:
                raise _late(what, seconds, self.console(machine))
            time.sleep(_POLL_SECONDS)

    def wait_off(self, machine: str, *, seconds: float) -> None:
        """Wait until a machine has no power any more. Raises ``MachineTimeout``."""
        unit = self.unit(machine)
        deadline = time.monotonic() + seconds
        while unit.running():
            if time.monotonic() > deadline:
                raise MachineTimeout(f"{machine} still runs after {seconds:.0f} s")
            time.sleep(0.1)

    def wait_for_console(
        self, machine: str, reached: Callable[[str], bool], *, seconds: float, what: str
    ) -> str:
        """Poll a machine's console until ``reached`` holds; it may have gone off by then."""
        unit = self.unit(machine)
        deadline = time.monotonic() + seconds
        while True:
            ended = unit.running() is None
            text = self.console(machine)
            if reached(text):
                return text
            if ended:
                unit.check()
            if time.monotonic() > deadline:
                raise _late(what, seconds, text)
            time.sleep(0.1)


def _text(path: Path | None) -> str | None:
    return str(path) if path else None


def _late(what: str, seconds: float, console: str) -> MachineTimeout:
    last = console.strip().splitlines()[-1:] or ["nothing"]
    return MachineTimeout(f"no {what} after {seconds:.0f} s", got=f"console: {last[0][:160]}")


def _lock(folder: int) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LabBusy("another command is starting things in this lab") from error
