"""Reading what a prediction needs: a disk's ESP, a variable store, a capture of the firmware.

The ESP is copied out with mtools, never mounted. Firmware starts ``EFI/BOOT/BOOTX64.EFI`` unless
told otherwise; what that image is decides how the boot goes on: shim starts ``grubx64.efi`` beside
it, systemd-boot offers every entry it finds, anything else is the kernel image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from catena.errors import FormatError, NotFound, UsageError
from catena.formats import dsse, gpt, pe, tcglog, varstore
from catena.formats.efi import EFI_GLOBAL_VARIABLE
from catena.formats.pe import PeImage
from catena.formats.references import FirmwareCapture, parse_predicate
from catena.ids import HashAlg
from catena.measure import grammar
from catena.measure.boot_path import (
    CAPTURED_PCRS,
    BootInputs,
    BootPath,
    Capture,
    Files,
    Firmware,
    Sidecar,
)
from catena.measure.replay import replay
from catena.measure.stub import program
from catena.osimage.disk import ESP_TYPE
from catena.osimage.tool import MCOPY, ToolFailed, run

DEFAULT_BOOT_FILE = "/EFI/BOOT/BOOTX64.EFI"

_DISK_START = 1024 * 1024
_SECOND_STAGE = "grubx64.efi"
_FALLBACK = "fbx64.efi"
_DETOUR = "shim starts fbx64.efi, which writes boot options and restarts"
_KEY_NAMES = ("PK", "KEK", "db", "dbx", "dbt", "dbr")
_LEVEL = "SbatLevel"
_OWNER_NAMES = ("MokList", "MokListX", "MokSBState", "MokDBState", "MokPolicy", "SbatPolicy")
_ATTRIBUTES = 4
_WHOLE_NAMES = ("env", "LC_ALL=C.UTF-8")
"""Without it mtools makes other letters of those that are not ASCII."""

MAX_FILE = 1 << 30


class NoBootFile(NotFound):
    """A file that the boot needs is not on the disk's ESP."""

    code = "no-boot-file"
    remedy = "Give the disk that the machine boots, or name the file with --boot-file."


class NoEsp(NotFound):
    """A disk without an EFI system partition."""

    code = "no-esp"
    remedy = "Give a disk image with a GUID partition table and an EFI system partition."


class NothingToBoot(UsageError):
    """Neither a disk nor an image was given."""

    code = "nothing-to-boot"
    remedy = "Give --disk IMAGE or --uki FILE."


@dataclass(frozen=True, slots=True)
class Esp:
    """The files of an ESP under their paths in lower case: FAT does not tell case apart."""

    files: Mapping[str, tuple[str, Path]] = field(default_factory=dict)

    def read(self, path: str) -> bytes:
        """A file's content. Raises ``NoBootFile``."""
        found = self.files.get(path.lower())
        if found is None:
            raise NoBootFile(f"the ESP has no file {path}")
        return found[1].read_bytes()

    def find(self, path: str) -> bytes | None:
        """A file's content, or None."""
        return self.read(path) if path.lower() in self.files else None

    def folder(self, path: str, suffix: str) -> Files:
        """Files right in a folder whose names end so: name and content, by name."""
        start = f"{path.lower().rstrip('/')}/"
        found = [
            (name, place.read_bytes())
            for lower, (name, place) in self.files.items()
            if lower.startswith(start)
            and "/" not in lower[len(start) :]
            and lower.endswith(suffix)
            and not name.startswith(".")
            and name.isascii()
        ]
        return tuple(sorted(found))


def of_disk(
    disk: Path,
    firmware: Firmware,
    *,
    capture: Capture | None = None,
    boot_file: str = DEFAULT_BOOT_FILE,
    smbios_line: str | None = None,
) -> BootInputs:
    """The inputs of a machine that boots this disk.

    Raises ``FormatError``, ``NoEsp``, ``NoBootFile``, or as ``osimage.tool.run`` does.
    """
    with disk.open("rb") as image:
        start = image.read(_DISK_START)
    table = gpt.measured_data(start)
    partition = _esp_partition(table)
    with tempfile.TemporaryDirectory(prefix="catena-esp-") as room:
        esp = _copy_esp(disk, partition, Path(room))
        paths = tuple(_paths(esp, boot_file, smbios_line))
    return BootInputs(firmware, paths, table, capture)


def of_image(
    image: bytes, firmware: Firmware, *, capture: Capture | None = None, sidecar: Sidecar
) -> BootInputs:
    """The inputs of a machine that starts this image right from firmware. Raises ``FormatError``."""
    path = BootPath("", pe.parse(image), sidecar=sidecar)
    return BootInputs(firmware, (path,), None, capture)


def sidecar_of(
    addons: Mapping[str, bytes], credentials: Mapping[str, bytes], smbios_line: str | None
) -> Sidecar:
    """Files beside an image that is given without a disk. Raises ``FormatError``."""
    return Sidecar(
        credentials=tuple(sorted(credentials.items())),
        addons=_images(tuple(sorted(addons.items()))),
        smbios_line=smbios_line,
    )


def firmware_of_store(content: bytes) -> Firmware:
    """Secure Boot as a variable store leaves it: on if it is enabled and there is a PK.

    Raises ``FormatError``.
    """
    values = {one.name: one.data for one in varstore.parse(content)}
    enabled = values.get("SecureBootEnable") == b"\1" and bool(values.get("PK"))
    return _firmware(values, secure_boot=enabled)


def firmware_of_dump(folder: Path) -> Firmware:
    """Secure Boot from a copy of ``/sys/firmware/efi/efivars``: attributes u32, then content."""
    values = {
        path.name.partition("-")[0]: path.read_bytes()[_ATTRIBUTES:]
        for path in sorted(folder.iterdir())
        if path.is_file() and _counts(path.name.partition("-")[0])
    }
    if "SecureBoot" not in values:
        raise NoBootFile(f"{folder} has no variable SecureBoot-{EFI_GLOBAL_VARIABLE}")
    return _firmware(values, secure_boot=values["SecureBoot"] == b"\1")


def _counts(name: str) -> bool:
    known = {*_KEY_NAMES, *_OWNER_NAMES, _LEVEL, "SecureBoot"}
    return name in known or name.startswith("Boot")


def read_capture(name: str, content: bytes) -> Capture:
    """A firmware capture: the signed document, or the firmware log of a boot.

    A log counts for every bank whose grammar is sound. Raises ``FormatError``.
    """
    if content.lstrip().startswith(b"{"):
        statement = dsse.parse_statement(dsse.parse(content).payload)
        document = parse_predicate(statement.predicate, FirmwareCapture)
        return Capture(
            f"{document.name}-{document.version}",
            {HashAlg(bank): _numbered(values) for bank, values in document.pcrs.items()},
        )
    log = tcglog.parse(content)
    sound = {
        bank: replay(log, bank).pcrs
        for bank in log.banks
        if not any(True for _ in grammar.problems(log, bank))
    }
    return Capture(
        name, {bank: {pcr: pcrs[pcr] for pcr in CAPTURED_PCRS} for bank, pcrs in sound.items()}
    )


def _numbered(values: Mapping[str, str]) -> dict[int, bytes]:
    try:
        return {int(pcr): bytes.fromhex(value) for pcr, value in values.items()}
    except ValueError as error:
        raise FormatError("a capture states PCRs that are no hex digests") from error


def _firmware(values: Mapping[str, bytes], *, secure_boot: bool) -> Firmware:
    keys = {name: values[name] for name in _KEY_NAMES if values.get(name)}
    owner_keys = any(values.get(name) for name in _OWNER_NAMES)
    return Firmware(
        secure_boot, keys, owner_keys, values.get(_LEVEL, b""), tuple(_boot_variables(values))
    )


def _boot_variables(values: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """BootOrder, and each option that it names."""
    order = values.get("BootOrder", b"")
    if not order or len(order) % 2:
        return
    yield "BootOrder", order
    for at in range(0, len(order), 2):
        name = f"Boot{int.from_bytes(order[at : at + 2], 'little'):04X}"
        if name in values:
            yield name, values[name]


def _esp_partition(table: bytes) -> gpt.Partition:
    for one in gpt.parse_event(table).partitions:
        if one.type_guid == ESP_TYPE:
            return one
    raise NoEsp("the disk has no EFI system partition")


def _copy_esp(disk: Path, partition: gpt.Partition, room: Path) -> Esp:
    place = f"{disk.absolute()}@@{partition.first_lba * gpt.SECTOR}"
    try:
        run(MCOPY, ("-s", "-n", "-Q", "-i", place, "::/*", str(room)), within=_WHOLE_NAMES)
    except ToolFailed as error:
        raise NoEsp("the EFI system partition cannot be read", got=error.got) from error
    files = {
        f"/{path.relative_to(room).as_posix()}".lower(): (path.name, path)
        for path in sorted(room.rglob("*"))
        if path.is_file() and path.stat().st_size <= MAX_FILE
    }
    return Esp(files)


def _paths(esp: Esp, boot_file: str, smbios_line: str | None) -> Iterator[BootPath]:
    """Every way the boot can go from this file."""
    place = boot_file.replace("\\", "/")
    first = pe.parse(esp.read(place))
    shim: PeImage | None = None
    if program(first).kind == "shim":
        folder = PurePosixPath(place).parent
        if esp.find(str(folder / _FALLBACK)) is not None:
            yield BootPath("", first, shim=first, detour=_DETOUR)
            return
        shim, place = first, str(folder / _SECOND_STAGE)
        first = pe.parse(esp.read(place))
    if program(first).kind != "boot":
        sidecar = _sidecar(esp, place, smbios_line)
        yield BootPath("", first, shim=shim, sidecar=sidecar)
        return
    entries = _entries(esp, smbios_line)
    configuration = esp.find("/loader/loader.conf")
    for entry in entries:
        yield BootPath(
            entry.name if len(entries) > 1 else "",
            entry.image,
            shim=shim,
            loader=first,
            loader_configuration=configuration,
            options=entry.options,
            initrds=entry.initrds,
            sidecar=entry.sidecar,
        )


def _entries(esp: Esp, smbios_line: str | None) -> list[BootPath]:
    """systemd-boot's entries: files in loader/entries (type 1), images in EFI/Linux (type 2).

    An entry that names a file which is not there boots nothing: the loader does not offer it, or
    fails before it starts anything. Raises ``NoBootFile`` if none is left.
    """
    found: list[BootPath] = []
    lacking: NoBootFile | None = None
    for name, content in esp.folder("/loader/entries", ".conf"):
        try:
            found.append(_type_1(esp, name, content))
        except NoBootFile as error:
            lacking = error
    for name, content in esp.folder("/EFI/Linux", ".efi"):
        sidecar = _sidecar(esp, f"/EFI/Linux/{name}", smbios_line)
        found.append(BootPath(f"entry {name}", pe.parse(content), sidecar=sidecar))
    if not found:
        raise lacking or NoBootFile("the boot loader has no entry to boot")
    return found


def _type_1(esp: Esp, name: str, content: bytes) -> BootPath:
    """A Boot Loader Specification entry (UAPI.1); systemd-boot puts initrds before the options."""
    fields: dict[str, list[str]] = {}
    for line in content.decode("utf-8", "replace").splitlines():
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key and not key.startswith("#"):
            fields.setdefault(key, []).append(value.strip())
    program_path = next(iter([*fields.get("linux", ()), *fields.get("efi", ())]), None)
    if program_path is None:
        raise NoBootFile(f"entry {name} names no image")
    initrds = fields.get("initrd", [])
    words = [f"initrd={path.replace('/', chr(92))}" for path in initrds]
    return BootPath(
        f"entry {name}",
        pe.parse(esp.read(program_path)),
        options=" ".join([*words, *fields.get("options", [])]),
        initrds=tuple(esp.read(path) for path in initrds),
    )


def _sidecar(esp: Esp, image: str, smbios_line: str | None) -> Sidecar:
    """Files that systemd-stub takes along for the image at this path."""
    own = f"{image}.extra.d"
    configurations = esp.folder(own, ".confext.raw")
    extensions = [one for one in esp.folder(own, ".raw") if one not in configurations]
    return Sidecar(
        credentials=esp.folder(own, ".cred"),
        global_credentials=esp.folder("/loader/credentials", ".cred"),
        extensions=tuple(extensions),
        configurations=configurations,
        addons=_images(esp.folder(own, ".addon.efi")),
        global_addons=_images(esp.folder("/loader/addons", ".addon.efi")),
        smbios_line=smbios_line,
    )


def _images(files: Files) -> tuple[tuple[str, PeImage], ...]:
    return tuple((name, pe.parse(content)) for name, content in files)
