"""A software TPM 2.0 (swtpm) with a real endorsement certificate from a lab authority.

The authority stands for the TPM vendor: its root is what the lab's server accepts. All paths
are absolute, because swtpm changes directory.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from catena.errors import Unavailable
from catena.lab import tools
from catena.lab.process import Child
from catena.osimage.tool import ToolFailed

_SETUP_SECONDS = 60.0
_LISTEN = "0A"
_READY_SECONDS = 10.0
BANKS = "sha256,sha384"


class TpmStateInUse(Unavailable):
    """The state of a software TPM is held by a running one."""

    code = "tpm-state-in-use"
    remedy = "Bring the machine that uses it down first: catena lab down."


@dataclass(frozen=True, slots=True)
class Vendor:
    """The lab's TPM vendor: a folder with a root and an issuing authority."""

    folder: Path

    @property
    def roots(self) -> tuple[Path, ...]:
        """PEM files that a server must accept as EK roots and intermediates."""
        return (
            self.folder / "swtpm-localca-rootca-cert.pem",
            self.folder / "issuercert.pem",
        )

    def configuration(self) -> Path:
        """Write swtpm_setup's configuration and return its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        authority = self._written(
            "localca.conf",
            f"statedir = {self.folder}\n"
            f"signingkey = {self.folder}/signkey.pem\n"
            f"issuercert = {self.folder}/issuercert.pem\n"
            f"certserial = {self.folder}/certserial\n",
        )
        options = self._written(
            "localca.options",
            "--platform-manufacturer catena\n--platform-version 1\n--platform-model lab\n",
        )
        return self._written(
            "setup.conf",
            f"create_certs_tool = {tools.SWTPM_LOCALCA.path()}\n"
            f"create_certs_tool_config = {authority}\n"
            f"create_certs_tool_options = {options}\n",
        )

    def _written(self, name: str, content: str) -> Path:
        """A file with this content; left alone if it has it, another TPM may be reading it."""
        path = self.folder / name
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
        return path


def manufacture(state: Path, vendor: Vendor, banks: str = BANKS) -> None:
    """Make a new TPM: seeds, EK, EK certificate, PCR ``banks``. Does nothing if the state exists.

    The state appears complete or not at all; what a killed attempt left is swept away.
    """
    if state.exists():
        return
    state.parent.mkdir(parents=True, exist_ok=True)
    for left in state.parent.glob(f".{state.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    room = Path(tempfile.mkdtemp(prefix=f".{state.name}.", dir=state.parent.absolute()))
    try:
        tools.run_apart(  # it starts a TPM, which would stay if both of us were killed
            tools.SWTPM_SETUP,
            (
                "--tpm2",
                *("--tpmstate", room),
                *("--config", vendor.configuration()),
                "--create-ek-cert",
                "--create-platform-cert",
                *("--pcr-banks", banks),
                "--display",
                # swtpm_setup drops to another user when root runs it, unless told not to.
                *("--runas", pwd.getpwuid(os.getuid()).pw_name),
            ),
            seconds=_SETUP_SECONDS,
        )
        room.rename(state)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def start_for_machine(state: Path, control: Path, log: Path) -> Child:
    """Run the TPM for a virtual machine; it ends when the machine closes ``control``."""
    _refuse_running(state)
    control.unlink(missing_ok=True)
    child = Child(
        "swtpm",
        [
            tools.SWTPM.path(),
            "socket",
            "--tpm2",
            *("--tpmstate", f"dir={state.absolute()}"),
            *("--ctrl", f"type=unixio,path={control.absolute()}"),
            "--terminate",
        ],
        log=log,
    )
    try:
        _await_ready(child, control.exists)
    except BaseException:
        child.stop()
        raise
    return child


@contextmanager
def bench(state: Path, log: Path) -> Iterator[str]:
    """Hold a TPM's chip on the bench: powered, no machine around it. Yields a TCTI string.

    What an attacker with the chip in hand has: its keys, but none of the boot's PCRs.
    """
    _refuse_running(state)
    port = free_port_pair()
    command: list[str | Path] = [
        tools.SWTPM.path(),
        "socket",
        "--tpm2",
        *("--tpmstate", f"dir={state.absolute()}"),
        *("--server", f"type=tcp,port={port},bindaddr=127.0.0.1"),
        *("--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1"),
        *("--flags", "not-need-init,startup-clear"),
    ]
    with Child("swtpm", command, log=log) as child:
        _await_ready(child, lambda: listens(child.pid, port) and listens(child.pid, port + 1))
        yield f"swtpm:host=127.0.0.1,port={port}"


def free_port_pair() -> int:
    """A port P on loopback with P and P+1 free at this moment."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def _refuse_running(state: Path) -> None:
    """Refuse a state directory whose lock another swtpm holds."""
    lock = state / ".lock"
    if not lock.exists():
        return
    with lock.open("r+") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TpmStateInUse(f"the TPM state {state} is in use") from error


def _await_ready(child: Child, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not ready():
        child.check()
        if time.monotonic() > deadline:
            raise ToolFailed(f"swtpm was not ready after {_READY_SECONDS:.0f} s")
        time.sleep(0.01)


def listens(pid: int, port: int) -> bool:
    """Whether this process, and no other, listens on 127.0.0.1:``port``.

    Asked of the kernel (proc(5), ``/proc/net/tcp``): a connection could reach somebody who was
    faster to take the port, and would use up the one that a swtpm's command port serves.
    """
    address = f"0100007F:{port:04X}"
    lines = map(str.split, Path("/proc/net/tcp").read_text().splitlines()[1:])
    wanted = {f"socket:[{one[9]}]" for one in lines if (one[1], one[3]) == (address, _LISTEN)}
    try:
        return any(str(one.readlink()) in wanted for one in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:  # the process ended, or closed a file meanwhile
        return False
