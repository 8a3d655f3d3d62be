"""Probes: small machines that boot once, tell what their TPM holds, and go off.

A probe is the same firmware, TPM and processor as the lab's nodes around a disk with one ESP,
whose files are given. Its system is a kernel and an initrd of one program (busybox), so that a
boot takes seconds and measures nothing but what firmware, boot loader, stub and kernel do.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath

from catena.errors import Unavailable
from catena.formats.gpt import SECTOR, TABLE_SECTORS, Partition, PartitionTable
from catena.ids import HashAlg
from catena.lab import tools
from catena.lab.machine import Hardware, Machine, plain_console
from catena.lab.swtpm import Vendor
from catena.osimage import cpio
from catena.osimage.disk import ESP_TYPE, MINIMUM_ESP, copy_sparse, derived_guid, make_esp
from catena.osimage.tool import ZSTD, run

BANKS = (HashAlg.SHA1, HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512)
"""Every bank that the lab's TPM has."""

BOOT_SECONDS = 240.0
_MIB = 1024 * 1024
_FIRST_LBA = _MIB // SECTOR
_SPARE = 4 * _MIB
_POLL_SECONDS = 0.1


class ProbeSilent(Unavailable):
    """A probe went off, or took too long, without telling what was measured."""

    code = "probe-silent"
    remedy = "Read the machine's console.log: firmware refused the image, or the host is too busy."


class ProbeGarbled(Unavailable):
    """A probe's report is not in the form that its program writes."""

    code = "probe-garbled"
    remedy = "Run it again; a full disk cuts reports off."


@dataclass(frozen=True, slots=True)
class Report:
    """What a probe told. ``pcrs`` were read from the TPM, in every bank it has."""

    event_log: bytes
    ima_log: bytes
    command_line: str
    pcrs: dict[HashAlg, dict[int, bytes]]


@dataclass(frozen=True, slots=True)
class Probe:
    """One boot to be made: a disk, variables, and what qemu adds to SMBIOS."""

    name: str
    disk: Path
    varstore: Path
    smbios: tuple[str, ...] = ()


def initrd() -> bytes:
    """The probe's initrd: busybox and one script. Equal inputs give equal bytes."""
    script = (files("catena.lab") / "node" / "probe.sh").read_bytes()
    busybox = tools.BUSYBOX.path().read_bytes()
    root = PurePosixPath("/")
    entries = [
        cpio.file(root / "init", script, executable=True),
        cpio.file(root / "bin/busybox", busybox, executable=True),
        cpio.link(root / "bin/sh", "busybox"),
        cpio.character_device(root / "dev/console", 5, 1),
    ]
    return run(ZSTD, ("-9", "-T1", "--no-check"), content=cpio.archive(entries))


def boot(probe: Probe, folder: Path, vendor: Vendor) -> Report:
    """Boot a probe in ``folder`` and wait for its report; ``vars.fd`` there is what it left.

    Raises ``ProbeSilent`` or ``ProbeGarbled``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.txt"
    report.write_bytes(b"")
    hardware = Hardware(
        name=probe.name,
        folder=folder.absolute(),
        disk=probe.disk.absolute(),
        varstore=probe.varstore.absolute(),
        vendor=vendor,
        server_port=None,
        memory_mib=512,
        report=report.absolute(),
        smbios=probe.smbios,
        banks=",".join(BANKS),
    )
    with Machine(hardware) as machine:
        deadline = time.monotonic() + BOOT_SECONDS
        while machine.powered:
            if time.monotonic() > deadline:
                raise ProbeSilent(f"{probe.name} did not finish", got=_last_words(hardware))
            time.sleep(_POLL_SECONDS)
    return read_report(report.read_bytes(), probe.name, _last_words(hardware))


def read_report(content: bytes, name: str, last_words: str = "") -> Report:
    """Read what ``probe.sh`` wrote. Raises ``ProbeSilent`` or ``ProbeGarbled``."""
    lines = content.decode("ascii", "replace").replace("\r", "").splitlines()
    if lines[-1:] != ["done"]:
        raise ProbeSilent(f"{name} told nothing, or not all", got=last_words)
    held: dict[str, bytes] = {}
    pcrs: dict[HashAlg, dict[int, bytes]] = {}
    rest = iter(lines)
    try:
        for line in rest:
            # Firmware may print to the same port before the system runs: no line of ours.
            match line.split():
                case ["file", told]:
                    encoded = "".join(iter(lambda: next(rest), "end"))
                    held[told] = base64.b64decode(encoded, validate=True)
                case ["pcr", bank, index, value]:
                    pcrs.setdefault(HashAlg(bank), {})[int(index)] = bytes.fromhex(value)
                case ["file" | "pcr", *_]:
                    raise ProbeGarbled(f"the report of {name} cannot be read", got=ascii(line[:80]))
        return Report(
            event_log=held["binary_bios_measurements"],
            ima_log=held["binary_runtime_measurements"],
            command_line=held["command_line"].decode().strip(),
            pcrs=pcrs,
        )
    except (ValueError, KeyError, StopIteration, binascii.Error) as error:
        raise ProbeGarbled(f"the report of {name} cannot be read") from error


def make_disk(disk: Path, identity: str, contents: Mapping[str, bytes]) -> None:
    """A disk of one ESP with these files, by path from its root. Raises ``ToolFailed``."""
    size = max(MINIMUM_ESP, sum(map(len, contents.values())) + _SPARE)
    size += -size % _MIB
    last = _FIRST_LBA + size // SECTOR - 1
    name = identity.encode()
    esp = Partition(ESP_TYPE, derived_guid(name, "esp"), _FIRST_LBA, last, 0, "esp")
    table = PartitionTable(derived_guid(name, "disk"), last + 2 + TABLE_SECTORS, (esp,))
    with tempfile.TemporaryDirectory(dir=disk.parent) as room, disk.open("wb") as image:
        sources = {}
        for number, (path, content) in enumerate(contents.items()):
            sources[path] = Path(room, str(number))
            sources[path].write_bytes(content)
        system = Path(room, "esp")
        make_esp(system, size, derived_guid(name, "fat").hex[:8], sources)
        image.truncate(table.sectors * SECTOR)
        image.write(table.encode_start())
        copy_sparse(system, image, _FIRST_LBA * SECTOR)
        image.seek((table.last_usable + 1) * SECTOR)
        image.write(table.encode_end())


def _last_words(hardware: Hardware) -> str:
    lines = plain_console(hardware.console).strip().splitlines()[-3:]
    return f"console: {' / '.join(lines)[:300]}"
