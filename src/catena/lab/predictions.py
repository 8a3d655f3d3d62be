"""Boots that differ, predicted from their files and compared with what their TPM held.

Each case is a disk, a variable store and a firmware; its PCRs 0–15 are predicted in every bank of
the TPM before it boots. What the firmware measures of itself comes from one boot of the same
machine that is no case. A case agrees only if each PCR has the value of the branch that it names.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from uuid import UUID

import msgspec

from catena.formats.efi import EFI_CERT_SHA256, SignatureEntry, SignatureList
from catena.keys import hierarchy, varstore
from catena.keys.hierarchy import KeyFolder, KeyName
from catena.lab import archive, probe, tools
from catena.lab.probe import BANKS, Probe, Report
from catena.lab.swtpm import Vendor
from catena.lab.tree import Cache, Progress
from catena.measure.boot_path import Capture
from catena.measure.prediction import PcrPrediction, Value, predict
from catena.osimage import authenticode, boot_inputs, cpio, uki
from catena.osimage.boot_inputs import DEFAULT_BOOT_FILE as BOOT_FILE
from catena.osimage.tool import EFI_STUB
from catena.osimage.uki import Part

LINE = b"console=ttyS0 quiet probe=1"
CREDENTIALS = {"one.cred": b"a credential", "two.cred": b"another"}
SMBIOS_LINE = "probe.smbios=1"

AT_ONCE = 2
"""Machines that boot at the same time."""

_STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
_ADDON = "usr/lib/systemd/boot/efi/addonx64.efi.stub"
_LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
_SHIM = "usr/lib/shim/shimx64.efi"
_SUITES = {254: "bookworm-backports", 257: "trixie"}
_OWN_VERSION = 252
_ENTRY = "title probe\nlinux /vmlinuz\ninitrd /initrd\ninitrd /second\noptions console=ttyS0 quiet type1=1\n"
_BLANKS = b"  console=ttyS0\tquiet \n"
_KEYS = (Part(".pcrsig", b'{"sha256":[]}'), Part(".pcrpkey", b"a public key\n"))
_STARTS = {10: "template ima-sig", 11: "as the kernel starts"}
"""The branch that a probe takes where every boot can go several ways: its kernel's IMA template,
and a system that measures no phases."""


class Ingredients:
    """What disks are made of: kernel, initrd, systemd's programs of three releases, shim, keys."""

    def __init__(self, folder: Path, cache: Cache, progress: Progress) -> None:
        self.folder = folder
        self._cache = cache
        self._progress = progress
        keys = folder / "keys"
        self.keys: KeyFolder = (
            hierarchy.open_folder(keys)
            if keys.exists()
            else hierarchy.init(keys, organisation="catena lab", now=datetime.now(UTC))
        )

    @cached_property
    def kernel(self) -> bytes:
        """The lab's kernel."""
        unpacked = self._cache.kernel(self._progress)
        return next((unpacked / "boot").glob("vmlinuz-*")).read_bytes()

    @cached_property
    def initrd(self) -> bytes:
        """The probe's system."""
        return probe.initrd()

    @cached_property
    def secure_boot_on(self) -> Path:
        """Variables with our keys only, Secure Boot on."""
        store = self.folder / "on.fd"
        if not store.exists():
            varstore.enroll(self.keys, varstore.DEFAULT_TEMPLATE, store)
        return store

    @cached_property
    def revoked(self) -> Path:
        """The same after an update of dbx."""
        store = self.folder / "dbx.fd"
        if not store.exists():
            hashes = (SignatureEntry(UUID(int=1), bytes([n]) * 32) for n in range(3))
            varstore.revoke(
                self.secure_boot_on, store, [SignatureList(EFI_CERT_SHA256, tuple(hashes))]
            )
        return store

    @cached_property
    def secure_boot_off(self) -> Path:
        """Variables as the firmware comes."""
        return tools.FIRMWARE_VARS.path()

    def image(
        self, version: int = _OWN_VERSION, line: bytes = LINE, more: Sequence[Part] = ()
    ) -> bytes:
        """A signed unified kernel image on the stub of one release."""
        return self.signed(
            uki.assemble(
                self._program(version, _STUB),
                (
                    Part(".osrel", b"ID=probe\n"),
                    Part(".cmdline", line),
                    Part(".initrd", self.initrd),
                    *more,
                    Part(".linux", self.kernel),
                ),
            )
        )

    def addon(self, version: int, line: bytes, more: Sequence[Part] = ()) -> bytes:
        """A signed addon that adds to the command line."""
        stub = self._program(version, _ADDON)
        return self.signed(uki.assemble(stub, (Part(".cmdline", line), *more)))

    @cached_property
    def microcode(self) -> bytes:
        """An archive that the kernel searches for microcode, without any for this processor."""
        return cpio.archive([cpio.file(PurePosixPath("/kernel/x86/microcode/none"), b"none!")])

    def loader(self, version: int = _OWN_VERSION) -> bytes:
        """systemd-boot of one release, signed."""
        return self.signed(self._program(version, _LOADER))

    def shim(self) -> bytes:
        """Debian's shim before Microsoft signs it, signed by us."""
        suite = _SUITES[257]
        package = archive.unpacked(self._cache, suite, "shim-unsigned", self._progress)
        return self.signed((package / _SHIM).read_bytes())

    def vendors_loader(self) -> bytes:
        """systemd-boot 257 as Debian signs it for its shim."""
        suite = _SUITES[257]
        name = "systemd-boot-efi-amd64-signed"
        package = archive.unpacked(self._cache, suite, name, self._progress)
        return (package / f"{_LOADER}.signed").read_bytes()

    def signed(self, image: bytes) -> bytes:
        """An image signed with db."""
        keys = self.keys
        return authenticode.sign(image, keys.signer(KeyName.DB), keys.certificate(KeyName.DB))

    def _program(self, version: int, path: str) -> bytes:
        if version == _OWN_VERSION:
            return (EFI_STUB.path().parent / Path(path).name).read_bytes()
        suite = _SUITES[version]
        package = archive.unpacked(self._cache, suite, "systemd-boot-efi", self._progress)
        return (package / path).read_bytes()


@dataclass(frozen=True, slots=True)
class Case:
    """One boot. ``smbios`` are qemu's options; ``line`` is what they add to the command line."""

    name: str
    about: str
    files: Callable[[Ingredients], Mapping[str, bytes]]
    store: Callable[[Ingredients], Path]
    smbios: tuple[str, ...] = ()
    line: str | None = None
    branches: Mapping[int, str] = field(default_factory=lambda: _STARTS)


def _on(parts: Ingredients) -> Path:
    return parts.secure_boot_on


def _off(parts: Ingredients) -> Path:
    return parts.secure_boot_off


def _type_1(parts: Ingredients) -> Mapping[str, bytes]:
    return {
        BOOT_FILE: parts.loader(),
        "/vmlinuz": parts.kernel,
        "/initrd": parts.initrd,
        "/second": bytes(5),
        "/loader/entries/probe.conf": _ENTRY.encode(),
    }


def _beside(name: str) -> str:
    return f"{BOOT_FILE}.extra.d/{name}"


CASES = (
    Case("off-uki", "Secure Boot off, image started by firmware", lambda p: {BOOT_FILE: p.image()}, _off),
    Case("on-uki", "Secure Boot on, image started by firmware", lambda p: {BOOT_FILE: p.image()}, _on),
    Case(
        "on-sdboot",
        "systemd-boot 252 and image, blanks around its command line",
        lambda p: {BOOT_FILE: p.loader(), "/EFI/Linux/probe.efi": p.image(line=_BLANKS)},
        _on,
    ),
    Case("off-type1", "systemd-boot 252, kernel and two initrds of an entry", _type_1, _off),
    Case(
        "on-credentials",
        "credentials beside the image and of the ESP",
        lambda p: {
            BOOT_FILE: p.image(),
            **{_beside(name): content for name, content in CREDENTIALS.items()},
            "/loader/credentials/global.cred": b"for all",
        },
        _on,
    ),
    Case(
        "on-uki-254",
        "stub 254, addons of image and ESP, keys for the system",
        lambda p: {
            BOOT_FILE: p.image(254, _BLANKS, _KEYS),
            _beside("a.addon.efi"): p.addon(254, b"addon=1 \n"),
            _beside("b.addon.efi"): p.addon(254, b" addon=2"),
            "/loader/addons/c.addon.efi": p.addon(254, b"addon=3"),
            _beside("c.confext.raw"): b"to this stub, an extension",
        },
        _on,
    ),
    Case(
        "off-sdboot-254",
        "systemd-boot 254 with loader.conf, stub 254",
        lambda p: {
            BOOT_FILE: p.loader(254),
            "/EFI/Linux/probe.efi": p.image(254, _BLANKS),
            "/loader/loader.conf": b"timeout 0\n",
        },
        _off,
    ),
    Case(
        "on-sdboot-257",
        "systemd-boot 257 with loader.conf, stub 257",
        lambda p: {
            BOOT_FILE: p.loader(257),
            "/EFI/Linux/probe.efi": p.image(257),
            "/loader/loader.conf": b"timeout 0\n",
        },
        _on,
    ),
    Case(
        "on-addons",
        "addons of image and ESP, with microcode and initrd; extensions of both kinds",
        lambda p: {
            BOOT_FILE: p.image(257, more=(*_KEYS, Part(".ucode", p.microcode))),
            _beside("a.addon.efi"): p.addon(
                257, b"addon=1", (Part(".initrd", bytes(7)), Part(".ucode", p.microcode))
            ),
            _beside("d.addon.efi"): p.addon(257, b" d=1 ", (Part(".ucode", p.microcode),)),
            "/loader/addons/b.addon.efi": p.addon(257, b"addon=2"),
            _beside("e.sysext.raw"): b"an extension",
            _beside("c.confext.raw"): b"a configuration",
        },
        _on,
    ),
    Case(
        "on-smbios",
        "a command line in SMBIOS strings",
        lambda p: {BOOT_FILE: p.image(257)},
        _on,
        smbios=(
            "type=1,manufacturer=catena,serial=42",
            f"type=11,value=io.systemd.stub.kernel-cmdline-extra={SMBIOS_LINE}",
        ),
        line=SMBIOS_LINE,
    ),
    Case("on-dbx", "after an update of dbx", lambda p: {BOOT_FILE: p.image()}, lambda p: p.revoked),
    Case(
        "on-shim",
        "shim, systemd-boot 257, stub 257",
        lambda p: {
            BOOT_FILE: p.shim(),
            "/EFI/BOOT/grubx64.efi": p.loader(257),
            "/EFI/Linux/probe.efi": p.image(257),
        },
        _on,
    ),
    Case(
        "on-shim-vendor",
        "shim, the boot loader that its vendor signed, stub 257",
        lambda p: {
            BOOT_FILE: p.shim(),
            "/EFI/BOOT/grubx64.efi": p.vendors_loader(),
            "/EFI/Linux/probe.efi": p.image(257),
        },
        _on,
    ),
    Case(
        "on-no-line",
        "an image without a command line, stub 257",
        lambda p: {BOOT_FILE: p.image(257, b"")},
        _on,
    ),
    Case(
        "off-blanks",
        "blanks around the command line, stub 257",
        lambda p: {BOOT_FILE: p.image(257, b"  console=ttyS0 quiet \n")},
        _off,
    ),
)  # fmt: skip

CALIBRATION = Case(
    "calibration",
    "the same machine once before: what its firmware measures of itself",
    lambda p: {BOOT_FILE: p.image(_OWN_VERSION, b"console=ttyS0 calibration=1")},
    _off,
)


class PcrResult(msgspec.Struct, frozen=True, kw_only=True):
    """One PCR of one case. ``agrees`` in every bank, by the value of ``branch``."""

    pcr: int
    agrees: bool
    branch: str
    values: int
    reason: str | None
    predicted: dict[str, str]
    held: dict[str, str]


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case: prediction against TPM."""

    name: str
    about: str
    agrees: bool
    pcrs: tuple[PcrResult, ...]


def compare_all(
    folder: Path, cache: Cache, progress: Progress, cases: Sequence[Case] = CASES
) -> Iterator[CaseResult]:
    """Predict and boot every case, two machines at a time; results in order.

    Raises ``ProbeSilent`` or ``ProbeGarbled`` for a machine that does not get to tell.
    """
    parts = Ingredients(folder, cache, progress)
    vendor = Vendor((folder / "vendor").absolute())
    progress("calibration")
    calibration = _boot(CALIBRATION, _disk(CALIBRATION, parts), parts, vendor)
    capture = boot_inputs.read_capture("calibration", calibration.event_log)

    def run(case: Case) -> CaseResult:
        progress(case.name)
        return _compare(case, parts, vendor, capture)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(run, cases)


def _disk(case: Case, parts: Ingredients) -> Path:
    """The disk of a case, in a folder of its own."""
    place = parts.folder / case.name
    place.mkdir(parents=True, exist_ok=True)
    disk = place / "disk.img"
    probe.make_disk(disk, case.name, case.files(parts))
    return disk


def _boot(case: Case, disk: Path, parts: Ingredients, vendor: Vendor) -> Report:
    made = Probe(case.name, disk, case.store(parts), case.smbios)
    try:
        return probe.boot(made, disk.parent, vendor)
    finally:
        shutil.rmtree(disk.parent / "tpm", ignore_errors=True)


def _compare(case: Case, parts: Ingredients, vendor: Vendor, capture: Capture) -> CaseResult:
    """Predict from the disk and the variables first; then boot them and look."""
    disk = _disk(case, parts)
    inputs = boot_inputs.of_disk(
        disk,
        boot_inputs.firmware_of_store(case.store(parts).read_bytes()),
        capture=capture,
        smbios_line=case.line,
    )
    prediction = predict(inputs, BANKS)
    report = _boot(case, disk, parts, vendor)
    results = tuple(_result(one, report, case) for one in prediction.pcrs)
    agrees = all(one.agrees for one in results)
    return CaseResult(name=case.name, about=case.about, agrees=agrees, pcrs=results)


def _result(predicted: PcrPrediction, report: Report, case: Case) -> PcrResult:
    """Whether the value of the branch that the case takes is the TPM's, in every bank."""
    pcr = predicted.pcr
    held = {bank: report.pcrs[bank][pcr] for bank in BANKS}
    value = _taken(predicted.values, case.branches.get(pcr, ""))
    return PcrResult(
        pcr=pcr,
        agrees=value is not None and dict(value.digests) == held,
        branch=value.branch if value else "",
        values=len(predicted.values),
        reason=predicted.reason,
        predicted={bank.value: one.hex() for bank, one in value.digests.items()} if value else {},
        held={bank.value: one.hex() for bank, one in held.items()},
    )


def _taken(values: Sequence[Value], branch: str) -> Value | None:
    """The only value whose branch ends so; None if there are several, or none."""
    found = [one for one in values if one.branch.endswith(branch)]
    return found[0] if len(found) == 1 else None
