"""One virtual machine: real UEFI firmware with Secure Boot in SMM, a software TPM, a disk.

Nothing leaves the host: the guest's network is restricted, and its one door is a forward from
10.0.2.100:8443 to the trust service on loopback.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from catena.errors import Unavailable
from catena.lab import swtpm, tools
from catena.lab.process import Child

GUEST_SERVER = ("10.0.2.100", 8443)
"""Where the guest finds the trust service."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]|\x1b.|[\x00-\x08\x0b-\x1f]")


class MachineTimeout(Unavailable):
    """The machine did not reach the expected point in time."""

    code = "machine-timeout"
    remedy = "Read the machine's console.log; a host that is busy with other work is too slow."


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine is made of. ``folder`` is its own: TPM state, variables, console.

    ``server_port`` is None for a machine without a network; ``report`` is where its second serial
    port goes; ``smbios`` are qemu's ``-smbios`` options; ``banks`` the TPM's PCR banks.
    ``data_disk`` is a second disk; ``orders`` the pipe behind a port that takes orders.
    """

    name: str
    folder: Path
    disk: Path
    varstore: Path
    vendor: swtpm.Vendor
    server_port: int | None
    memory_mib: int = 1024
    sealed_copy: Path | None = None
    data_disk: Path | None = None
    orders: Path | None = None
    report: Path | None = None
    smbios: tuple[str, ...] = ()
    banks: str = swtpm.BANKS

    @property
    def tpm_state(self) -> Path:
        """The TPM's non-volatile state."""
        return self.folder / "tpm"

    @property
    def console(self) -> Path:
        """Everything the serial console printed in the newest boot."""
        return self.folder / "console.log"


class Machine:
    """A running machine. Use it as a context manager: it never outlives the block."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        hardware.folder.mkdir(parents=True, exist_ok=True)
        swtpm.manufacture(hardware.tpm_state, hardware.vendor, hardware.banks)
        # The firmware writes to its variables; the pristine store stays as it was made.
        variables = hardware.folder / "vars.fd"
        shutil.copyfile(hardware.varstore, variables)
        hardware.console.write_bytes(b"")
        control = hardware.folder / "tpm.sock"
        if hardware.orders is not None:
            hardware.orders.unlink(missing_ok=True)
            os.mkfifo(hardware.orders, 0o600)
        self._tpm = swtpm.start_for_machine(
            hardware.tpm_state, control, hardware.folder / "swtpm.log"
        )
        try:
            self._qemu = Child(
                "qemu",
                _qemu_command(hardware, variables, control),
                log=hardware.folder / "qemu.log",
            )
        except BaseException:
            self._tpm.stop()
            raise

    def check(self) -> None:
        """Raise ``ChildDied`` if the firmware's or the TPM's process is gone."""
        # A TPM ends in order when its machine goes off; any other end is why the machine went.
        if self._tpm.status not in {None, 0}:
            self._tpm.check()
        self._qemu.check()
        self._tpm.check()

    @property
    def powered(self) -> bool:
        """Whether it is on; a machine that switched itself off is not. Raises ``ChildDied``."""
        if self._qemu.status == 0:
            return False
        self._qemu.check()
        return True

    def stop(self) -> None:
        """Cut the power."""
        self._qemu.stop()
        self._tpm.stop()

    def __enter__(self) -> Self:
        """The machine itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cut the power, whatever happened."""
        self.stop()


def plain_console(log: Path) -> str:
    """What a serial console printed, without terminal escapes; empty if it never existed."""
    try:
        printed = log.read_bytes()
    except FileNotFoundError:
        return ""
    return _ESCAPES.sub("", printed.decode(errors="replace"))


def _qemu_command(hardware: Hardware, variables: Path, control: Path) -> list[str | Path]:
    command: list[str | Path] = [
        tools.QEMU.path(),
        *("-name", hardware.name, "-nodefaults", "-display", "none", "-no-reboot"),
        *("-machine", "q35,smm=on,accel=tcg", "-cpu", "max", "-smp", "2"),
        *("-m", str(hardware.memory_mib)),
        *("-global", "driver=cfi.pflash01,property=secure,value=on"),
        *("-global", "ICH9-LPC.disable_s3=1"),
        *("-drive", _pflash(0, tools.FIRMWARE_CODE.path(), read_only=True)),
        *("-drive", _pflash(1, variables, read_only=False)),
        *("-chardev", f"socket,id=tpm,path={_quoted(control)}"),
        *("-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0"),
        *("-drive", f"file={_quoted(hardware.disk)},format=raw,if=none,id=disk,readonly=on"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
        *("-serial", f"file:{hardware.console.absolute()}"),
        *(word for option in hardware.smbios for word in ("-smbios", option)),
    ]
    if hardware.server_port is not None:
        command += _network(hardware.server_port)
    if hardware.report is not None:
        command += ["-serial", f"file:{_quoted(hardware.report)}"]
    return command + _ports(hardware) + _data_disk(hardware)


def _ports(hardware: Hardware) -> list[str]:
    ports = []
    if hardware.sealed_copy is not None:
        ports += [
            *("-chardev", f"file,id=sealed,path={_quoted(hardware.sealed_copy)},append=on"),
            *("-device", "virtserialport,chardev=sealed,name=catena.sealed"),
        ]
    if hardware.orders is not None:
        ports += [
            *("-chardev", f"pipe,id=orders,path={_quoted(hardware.orders)}"),
            *("-device", "virtserialport,chardev=orders,name=catena.orders"),
        ]
    return ["-device", "virtio-serial-pci", *ports] if ports else []


def _data_disk(hardware: Hardware) -> list[str]:
    """Last of all devices, and nothing that firmware boots from: disks before it keep their names."""
    if hardware.data_disk is None:
        return []
    drive = f"file={_quoted(hardware.data_disk)},format=raw,if=none,id=data,readonly=on"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=data"]


def _network(port: int) -> list[str]:
    """One door; without an option ROM the network card adds nothing to PCR 2."""
    address, guest_port = GUEST_SERVER
    forward = f"{tools.SOCAT.path()} STDIO TCP:127.0.0.1:{port}"
    network = f"user,id=net,restrict=on,guestfwd=tcp:{address}:{guest_port}-cmd:{forward}"
    return ["-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="]


def _pflash(unit: int, path: Path, *, read_only: bool) -> str:
    mode = "on" if read_only else "off"
    return f"if=pflash,unit={unit},format=raw,file={_quoted(path)},readonly={mode}"


def _quoted(path: Path) -> str:
    """A path inside a qemu option: a comma is written twice."""
    return str(path.absolute()).replace(",", ",,")
