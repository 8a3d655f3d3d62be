"""One way through the boot, followed program by program: what each measures, in order.

Firmware starts shim or the boot loader or the image itself; whoever is started starts the next.
What cannot be told for a PCR is kept as a reason, and its events are then of no use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from catena.formats import pe
from catena.formats.efi import IMAGE_SECURITY_DATABASE, SHIM_LOCK, VariableData
from catena.formats.pe import PeImage
from catena.ids import HashAlg
from catena.measure import shim, sidecar
from catena.measure.boot_path import BootPath, Firmware
from catena.measure.shim import ShimMeasurements
from catena.measure.sidecar import PUBLIC_MODES, SECRET_MODES
from catena.measure.stub import LOADERS, STUBS, Loader, Stub, clean, measured_sections, program
from catena.measure.verification import accepting_entry

SHIM_PCRS = (7, 14)
BOOT_PCRS = (4, 5, 7, 8, 9, 11, 12, 13, 14)
"""Everything that still changes when firmware has started its first program, but for IMA's."""

STUB_PCRS = (4, 9, 11, 12, 13)
LOADER_PCRS = (4, 5, 9, 12)


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement; ``digest`` gives what is extended into a bank.

    It is asked for several values of a PCR and hashes up to an initrd, so it remembers.
    """

    pcr: int
    what: str
    digest: Callable[[HashAlg], bytes]


@dataclass(slots=True)
class Chain:
    """What one way through the boot measures, beyond what firmware always does.

    ``unknown`` has the reason for each PCR that cannot be told.
    """

    name: str
    events: list[Measured] = field(default_factory=list)
    unknown: dict[int, str] = field(default_factory=dict)

    def give_up(self, pcrs: tuple[int, ...], reason: str) -> None:
        """Note why these PCRs cannot be told; the first reason stays."""
        for pcr in pcrs:
            self.unknown.setdefault(pcr, reason)


def of_data(pcr: int, what: str, data: bytes) -> Measured:
    """A measurement of bytes."""
    return Measured(pcr, what, cache(lambda bank: bank.digest(data)))


def _of_image(what: str, image: PeImage) -> Measured:
    return Measured(4, what, cache(image.authenticode))


def follow(path: BootPath, firmware: Firmware) -> Chain:
    """Follow a path. Raises ``FormatError`` for images that are malformed."""
    return _Follower(path, firmware).follow()


class _Follower:
    """Walks along one path and writes down what happens."""

    def __init__(self, path: BootPath, firmware: Firmware) -> None:
        self._path = path
        self._firmware = firmware
        self._secure_boot = firmware.secure_boot
        self._chain = Chain(path.name)
        self._shims: ShimMeasurements | None = None
        self._authorities: set[tuple[bool, bytes]] = set()

    def follow(self) -> Chain:
        if self._path.shim is not None and not self._shim(self._path.shim):
            return self._chain
        if self._path.loader is not None and not self._loader(self._path.loader):
            return self._chain
        what = program(self._path.image)
        if what.kind == "stub":
            self._unified(what.version, what.name)
        else:
            self._kernel()
        return self._chain

    def _start(self, what: str, image: PeImage) -> bool:
        """Firmware, or shim in its place, verifies and measures an image; False: it refuses it."""
        if self._secure_boot:
            authority = self._authority(image)
            if authority is None:
                return False
            # Each keeps its own account of what it measured already.
            account = (self._shims is not None, authority)
            if account not in self._authorities:
                self._authorities.add(account)
                self._measure(7, f"key that accepts {what}", authority)
        self._chain.events.append(_of_image(what, image))
        return True

    def _goes_on(self, what: str, image: PeImage) -> bool:
        """The same for an image without which the boot ends, or goes a way that is not followed."""
        if self._start(what, image):
            return True
        reason = f"no key of db accepts {what}: it will not be started"
        self._chain.give_up(BOOT_PCRS, reason)
        return False

    def _authority(self, image: PeImage) -> bytes | None:
        """UEFI_VARIABLE_DATA with the entry of db, or of shim's own list, that accepts an image."""
        db, dbx = (self._firmware.keys.get(name, b"") for name in ("db", "dbx"))
        accepting = [(IMAGE_SECURITY_DATABASE, "db", db)]
        if self._shims is not None:
            dbx += self._shims.revoked
            accepting.append((SHIM_LOCK, "MokListRT", self._shims.accepted))
        for guid, name, content in accepting:
            entry = accepting_entry(image, content, dbx)
            if entry is not None:
                return VariableData(guid, name, entry.encode()).encode()
        return None

    def _measure(self, pcr: int, what: str, data: bytes) -> None:
        self._chain.events.append(of_data(pcr, what, data))

    def _shim(self, image: PeImage) -> bool:
        if not self._goes_on("shim", image):
            return False
        if self._path.detour is not None:
            self._chain.give_up(BOOT_PCRS, self._path.detour)
            return False
        generation = program(image).version
        if generation not in shim.GENERATIONS:
            self._chain.give_up(SHIM_PCRS, f"shim of generation {generation} is not known")
            return True
        if self._firmware.owner_keys:
            reason = "machine owner keys are set: shim measures them, too"
            self._chain.give_up(SHIM_PCRS, reason)
        found = shim.measurements(
            image, secure_boot=self._secure_boot, stored_level=self._firmware.sbat_level
        )
        for name, content in found.owner_keys:
            self._measure(14, f"shim's {name}", content)
        self._measure(7, "shim's SbatLevel", found.level)
        self._shims = found
        return True

    def _loader(self, image: PeImage) -> bool:
        if not self._goes_on("boot loader", image):
            return False
        what = program(image)
        behaviour = LOADERS.get(what.version) if what.kind == "boot" else None
        if behaviour is None:
            self._chain.give_up(LOADER_PCRS, f"what {what.name} measures is not known")
            return True
        configuration = self._path.loader_configuration
        if behaviour.measures_configuration and configuration is not None:
            self._measure(5, "loader.conf", configuration)
        if self._path.options:
            self._measure(12, "options of the boot entry", _utf16(self._path.options))
        elif self._passed_line():
            line = _utf16(self._passed_line())
            self._measure(12, "embedded command line, by the boot loader", line)
        return True

    def _unified(self, version: int, name: str) -> None:
        image, chain = self._path.image, self._chain
        if not self._goes_on("unified kernel image", image):
            return
        stub = STUBS.get(version)
        if stub is None:
            chain.give_up(STUB_PCRS, f"what {name} measures is not known")
            return
        if any(section.name == ".profile" for section in image.sections):
            chain.give_up(STUB_PCRS, "the image has profiles: one is chosen as it starts")
            return
        for section_name, content in measured_sections(image, stub):
            self._measure(11, f"name of section {section_name}", section_name.encode() + b"\0")
            self._measure(11, f"content of section {section_name}", content)
        lines = [stub.clean(self._text())]
        if self._passed_line() and not self._secure_boot:
            lines = [self._passed_line()]
            self._measure(12, "command line that was passed in", _utf16(lines[0]))
        addons = self._addons(stub)
        lines += self._added_lines(stub, addons)
        archives = list(self._sidecar_archives(stub))
        for pcr, what, content in archives:
            self._measure(pcr, what, content)
        initrd = self._initrd(stub, addons, [content for _, _, content in archives])
        self._inner_kernel()
        self._hand_over(" ".join(line for line in lines if line), initrd)

    def _hand_over(self, line: str, initrd: bytes) -> None:
        """The kernel measures what it was given, if anything."""
        if line:
            self._measure(9, "kernel command line", _utf16(line))
        if initrd:
            self._measure(9, "initrd", initrd)

    def _passed_line(self) -> str:
        """The embedded line, if the boot loader hands it over as if it were its own."""
        loader, image = self._path.loader, program(self._path.image)
        if loader is None or image.kind != "stub":
            return ""
        behaviour = LOADERS.get(program(loader).version, Loader())
        return clean(self._text(), strips=False) if behaviour.passes_embedded_line else ""

    def _addons(self, stub: Stub) -> dict[str, list[tuple[str, PeImage]]]:
        """Addons by scope. Each is an image that is verified and measured before it is read; one
        that is refused is passed over.
        """
        extra = self._path.sidecar
        scopes = {"ESP": extra.global_addons, "image": extra.addons} if stub.adds_lines else {}
        return {
            scope: [
                (name, addon)
                for name, addon in sorted(addons, key=lambda one: one[0])
                if self._start(f"addon {name} of the {scope}", addon)
            ]
            for scope, addons in scopes.items()
        }

    def _added_lines(
        self, stub: Stub, addons: Mapping[str, Sequence[tuple[str, PeImage]]]
    ) -> Iterator[str]:
        """Lines of addons, joined, and of SMBIOS, which old stubs take as it is."""
        texts = [[_section_text(addon) for _, addon in scope] for scope in addons.values()]
        if stub.joins_scopes:
            texts = [[stub.clean(text) for scope in texts for text in scope]]
        for scope in texts:
            line = stub.clean(" ".join(text for text in scope if text))
            if line:
                self._measure(12, "command lines of addons", _utf16(line))
                yield line
        given = (self._path.sidecar.smbios_line or "") if stub.adds_lines else ""
        line = stub.clean(given) if stub.strips else given
        if line:
            self._measure(12, "command line of SMBIOS", _utf16(line))
            yield line

    def _sidecar_archives(self, stub: Stub) -> Iterator[tuple[int, str, bytes]]:
        extra = self._path.sidecar
        found = (
            (12, "credentials", ".extra/credentials", extra.credentials, SECRET_MODES),
            (
                *(12, "credentials of the ESP", ".extra/global_credentials"),
                *(extra.global_credentials, SECRET_MODES),
            ),
            (13, "system extensions", ".extra/sysext", self._extensions(stub), PUBLIC_MODES),
            (
                *(12, "configuration extensions", ".extra/confext"),
                *(extra.configurations if stub.knows_configurations else (), PUBLIC_MODES),
            ),
        )
        for pcr, what, folder, files, modes in found:
            content = sidecar.archive(folder, files, modes)
            if content:
                yield pcr, what, content

    def _extensions(self, stub: Stub) -> tuple[tuple[str, bytes], ...]:
        """Old stubs know only system extensions, and take every ``.raw`` for one."""
        extra = self._path.sidecar
        return extra.extensions + (() if stub.knows_configurations else extra.configurations)

    def _inner_kernel(self) -> None:
        """Without Secure Boot the stub lets firmware load the kernel inside, which measures it."""
        section = self._path.image.section(".linux")
        if section is None or self._secure_boot:
            return
        self._chain.events.append(
            _of_image("kernel inside the image", pe.parse(self._path.image.content(section)))
        )

    def _initrd(
        self,
        stub: Stub,
        addons: Mapping[str, Sequence[tuple[str, PeImage]]],
        archives: Sequence[bytes],
    ) -> bytes:
        """What the stub joins: microcode of addons, then of the image, its initrd, the archives,
        sections as files, initrds of addons. One alone stays as it is.
        """
        loaded = [one for scope in addons.values() for one in scope] if stub.adds_initrds else []
        microcode = self._of_addons("microcode", ".ucode", reversed(loaded))
        behind = self._of_addons("initrd", ".initrd", loaded)
        own = [self._content(".ucode") if ".ucode" in stub.sections else b""]
        own.append(self._content(".initrd"))
        embedded = [
            sidecar.archive(".extra", ((name, content),), PUBLIC_MODES)
            for section, name in stub.embedded
            if (content := self._content(section))
        ]
        parts = [one for one in (*microcode, *own, *archives, *embedded, *behind) if one]
        return parts[0] if len(parts) == 1 else b"".join(map(sidecar.padded, parts))

    def _of_addons(
        self, what: str, section_name: str, addons: Iterable[tuple[str, PeImage]]
    ) -> list[bytes]:
        """Sections of addons that end in the initrd; each is measured."""
        found = []
        for name, addon in addons:
            section = addon.section(section_name)
            if section is not None:
                found.append(addon.content(section))
                self._measure(12, f"{what} of addon {name}", found[-1])
        return found

    def _content(self, section_name: str) -> bytes:
        section = self._path.image.section(section_name)
        return b"" if section is None else self._path.image.content(section)

    def _kernel(self) -> None:
        if not self._goes_on("kernel", self._path.image):
            return
        if self._path.options is None:
            self._chain.give_up((9,), "the kernel's command line is not known")
            return
        loader, initrds = self._path.loader, self._path.initrds
        behaviour = Loader() if loader is None else LOADERS.get(program(loader).version, Loader())
        if behaviour.joins_initrds:
            initrds = (*map(sidecar.padded, initrds[:-1]), *initrds[-1:])
        self._hand_over(self._path.options, b"".join(initrds))

    def _text(self) -> str:
        return _section_text(self._path.image)


def _section_text(image: PeImage) -> str:
    """The command line in an image or addon, up to a NUL."""
    section = image.section(".cmdline")
    content = b"" if section is None else image.content(section)
    return content.partition(b"\0")[0].decode("utf-8", "replace")


def _utf16(text: str) -> bytes:
    return f"{text}\0".encode("utf-16-le")
