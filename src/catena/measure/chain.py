"""One way through the boot, followed program by program: what each measures, in order.

Firmware starts shim or the boot loader or the image itself; whoever is started starts the next.
What cannot be told for a PCR is kept as a reason, and its events are then of no use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from catena.formats import pe
from catena.formats.pe import PeImage
from catena.ids import HashAlg
from catena.measure import shim, sidecar
from catena.measure.boot_path import BootPath, Firmware
from catena.measure.sidecar import PUBLIC_MODES, SECRET_MODES
from catena.measure.stub import LOADERS, STUBS, Loader, Stub, program

SHIM_PCRS = (7, 14)
STUB_PCRS = (4, 9, 11, 12, 13)
LOADER_PCRS = (4, 5, 9, 12)


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement; ``digest`` gives what is extended into a bank."""

    pcr: int
    what: str
    digest: Callable[[HashAlg], bytes]


@dataclass(slots=True)
class Chain:
    """What one way through the boot measures, beyond what firmware always does.

    ``verified`` are images that firmware verifies, ``shim_verified`` those that shim does, in
    order. ``unknown`` has the reason for each PCR that cannot be told.
    """

    name: str
    events: list[Measured] = field(default_factory=list)
    verified: list[tuple[str, PeImage]] = field(default_factory=list)
    shim_verified: list[tuple[str, PeImage]] = field(default_factory=list)
    unknown: dict[int, str] = field(default_factory=dict)

    def give_up(self, pcrs: tuple[int, ...], reason: str) -> None:
        """Note why these PCRs cannot be told; the first reason stays."""
        for pcr in pcrs:
            self.unknown.setdefault(pcr, reason)


def of_data(pcr: int, what: str, data: bytes) -> Measured:
    """A measurement of bytes."""
    return Measured(pcr, what, partial(_digest_of, data))


def _digest_of(data: bytes, bank: HashAlg) -> bytes:
    return bank.digest(data)


def _of_image(what: str, image: PeImage) -> Measured:
    return Measured(4, what, image.authenticode)


def follow(path: BootPath, firmware: Firmware) -> Chain:
    """Follow a path. Raises ``FormatError`` for images that are malformed."""
    return _Follower(path, firmware).follow()


class _Follower:
    """Walks along one path and writes down what happens."""

    def __init__(self, path: BootPath, firmware: Firmware) -> None:
        self._path = path
        self._owner_keys = firmware.owner_keys
        self._secure_boot = firmware.secure_boot
        self._chain = Chain(path.name)

    def follow(self) -> Chain:
        if self._path.shim is not None:
            self._shim(self._path.shim)
        if self._path.loader is not None:
            self._loader(self._path.loader)
        what = program(self._path.image)
        if what.kind == "stub":
            self._unified(what.version, what.name)
        else:
            self._kernel()
        return self._chain

    def _start(self, what: str, image: PeImage) -> None:
        """Firmware, or shim in its place, verifies and measures an image."""
        self._chain.events.append(_of_image(what, image))
        by_shim = self._path.shim is not None and image is not self._path.shim
        verified = self._chain.shim_verified if by_shim else self._chain.verified
        verified.append((what, image))

    def _measure(self, pcr: int, what: str, data: bytes) -> None:
        self._chain.events.append(of_data(pcr, what, data))

    def _shim(self, image: PeImage) -> None:
        self._start("shim", image)
        generation = program(image).version
        if generation not in shim.GENERATIONS:
            self._chain.give_up(SHIM_PCRS, f"shim of generation {generation} is not known")
            return
        if self._owner_keys:
            self._chain.give_up(SHIM_PCRS, "machine owner keys are set: shim measures them, too")
            return
        found = shim.measurements(image, secure_boot=self._secure_boot)
        for name, content in found.owner_keys:
            self._measure(14, f"shim's {name}", content)
        self._measure(7, "shim's SbatLevel", found.level)

    def _loader(self, image: PeImage) -> None:
        self._start("boot loader", image)
        what = program(image)
        behaviour = LOADERS.get(what.version) if what.kind == "boot" else None
        if behaviour is None:
            self._chain.give_up(LOADER_PCRS, f"what {what.name} measures is not known")
            return
        configuration = self._path.loader_configuration
        if behaviour.measures_configuration and configuration is not None:
            self._measure(5, "loader.conf", configuration)
        if self._path.options is not None:
            self._measure(12, "options of the boot entry", _utf16(self._path.options))
        elif behaviour.passes_embedded_line:
            self._measure(12, "embedded command line, by the boot loader", self._line())

    def _unified(self, version: int, name: str) -> None:
        image, chain = self._path.image, self._chain
        self._start("unified kernel image", image)
        stub = STUBS.get(version)
        if stub is None:
            chain.give_up(STUB_PCRS, f"what {name} measures is not known")
            return
        for section_name in stub.sections:
            section = image.section(section_name)
            if section is not None:
                self._measure(11, f"name of section {section_name}", section_name.encode() + b"\0")
                self._measure(11, f"content of section {section_name}", image.content(section))
        line = self._stripped_line(stub)
        if self._is_passed_line() and not self._secure_boot:
            self._measure(12, "command line that was passed in", self._line())
        line += "".join(f" {added}" for added in self._added_lines(stub))
        self._archives(stub)
        self._inner_kernel()
        self._measure(9, "kernel command line", _utf16(line))
        self._measure(9, "initrd", self._initrd(stub))

    def _stripped_line(self, stub: Stub) -> str:
        """The embedded command line as the stub hands it on."""
        line = self._text().rstrip()
        if stub.strips_start:
            line = line.lstrip()
        elif stub.strips_start is None and line != line.lstrip():
            self._chain.give_up((9,), "what this stub does with blanks before the command line")
        if not line.isprintable():
            self._chain.give_up((9,), "the embedded command line has control characters")
        return line

    def _is_passed_line(self) -> bool:
        """Whether the boot loader hands the embedded line over as if it were its own."""
        if self._path.loader is None:
            return False
        behaviour = LOADERS.get(program(self._path.loader).version, Loader())
        return behaviour.passes_embedded_line

    def _added_lines(self, stub: Stub) -> Iterator[str]:
        """Addons are images: firmware verifies and measures each before the stub reads it.

        What they add is joined, the ESP's first, and measured once.
        """
        extra = self._path.sidecar
        if not stub.adds_lines:
            return
        texts = []
        for scope, addons in (("ESP", extra.global_addons), ("image", extra.addons)):
            for name, addon in sorted(addons, key=lambda one: one[0]):
                self._start(f"addon {name} of the {scope}", addon)
                section = addon.section(".cmdline")
                if section is not None:
                    texts.append(_decoded(addon.content(section)).strip())
        if len(texts) > 1 and not stub.joins_lines:
            self._chain.give_up((9, 12), "how this stub joins the lines of several addons")
        if texts:
            self._measure(12, "command lines of addons", _utf16(" ".join(texts)))
            yield " ".join(texts)
        if extra.smbios_line is not None:
            self._measure(12, "command line of SMBIOS", _utf16(extra.smbios_line))
            yield extra.smbios_line

    def _archives(self, stub: Stub) -> None:
        for pcr, what, content in self._sidecar_archives(stub):
            self._measure(pcr, what, content)

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
                *(extra.configurations if stub.adds_osrel else (), PUBLIC_MODES),
            ),
        )
        for pcr, what, folder, files, modes in found:
            content = sidecar.archive(folder, files, modes)
            if content:
                yield pcr, what, content

    def _extensions(self, stub: Stub) -> tuple[tuple[str, bytes], ...]:
        """Old stubs know only system extensions, and take every ``.raw`` for one."""
        extra = self._path.sidecar
        return extra.extensions + (() if stub.adds_osrel else extra.configurations)

    def _inner_kernel(self) -> None:
        """Without Secure Boot the stub lets firmware load the kernel inside, which measures it."""
        section = self._path.image.section(".linux")
        if section is None or self._secure_boot:
            return
        self._chain.events.append(
            _of_image("kernel inside the image", pe.parse(self._path.image.content(section)))
        )

    def _initrd(self, stub: Stub) -> bytes:
        """What the stub joins: the image's initrd, the archives, os-release."""
        image = self._path.image
        parts = [b"" if (found := image.section(".initrd")) is None else image.content(found)]
        parts += [content for _, _, content in self._sidecar_archives(stub)]
        osrel = image.section(".osrel")
        if stub.adds_osrel and osrel is not None:
            files = (("os-release", image.content(osrel)),)
            parts.append(sidecar.archive(".extra", files, PUBLIC_MODES))
        if len(parts) == 1:
            return parts[0]
        return b"".join(sidecar.padded(part) for part in parts)

    def _kernel(self) -> None:
        self._start("kernel", self._path.image)
        if self._path.options is None:
            self._chain.give_up((9,), "the kernel's command line is not known")
            return
        self._measure(9, "kernel command line", _utf16(self._path.options))
        if self._path.initrds:
            joined = b"".join(map(sidecar.padded, self._path.initrds[:-1]))
            self._measure(9, "initrd", joined + self._path.initrds[-1])

    def _text(self) -> str:
        section = self._path.image.section(".cmdline")
        return "" if section is None else _decoded(self._path.image.content(section))

    def _line(self) -> bytes:
        return _utf16(self._text())


def _decoded(content: bytes) -> str:
    return content.rstrip(b"\0").decode("utf-8", "replace")


def _utf16(text: str) -> bytes:
    return f"{text}\0".encode("utf-16-le")
