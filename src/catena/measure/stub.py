"""What systemd's EFI programs measure, by version (systemd-stub(7), systemd-boot(7)).

A version is in the tables below only once a real boot of it was compared with its prediction
(``catena lab predict``): what others measure is not guessed.

======  ===========================================================================================
PCR     systemd-stub extends it with
======  ===========================================================================================
4       by firmware, when the stub loads them: addons; the inner kernel if Secure Boot is off
9       by the kernel, of what the stub hands it: the initrds, joined, each padded to 4 bytes
11      of each section in its order: the name with NUL, the content
12      a command line that was passed in, if it counts; the command lines of addons, of the ESP's
        first, then of SMBIOS; credentials as one cpio archive, those of the ESP as another;
        configuration extensions
13      system extensions as one cpio archive
======  ===========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from catena.formats.pe import PeImage

_MAGIC = re.compile(rb"#### LoaderInfo: (systemd-(stub|boot) (\d+)[ -~]*?) ####\0?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SBAT_SHIM = re.compile(rb"^shim,(\d+),", re.MULTILINE)

_SECTIONS_252 = (".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".pcrpkey")
_SECTIONS_254 = (
    *(".linux", ".osrel", ".cmdline", ".initrd", ".splash", ".dtb", ".uname", ".sbat"),
    ".pcrpkey",
)
_SECTIONS_257 = (
    *(".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname"),
    *(".sbat", ".pcrpkey", ".profile", ".dtbauto", ".hwids"),
)


@dataclass(frozen=True, slots=True)
class Stub:
    """How one version of the stub behaves.

    ``sections`` are measured in this order, absent ones left out. ``embedded`` sections follow the
    initrd as files of ``/.extra``, each in a cpio of its own. ``adds_lines``: addons and SMBIOS may
    add to the command line; ``joins_scopes``: the lines of all addons are one measurement, else
    those of the ESP and those of the image are one each. ``adds_initrds``: addons may bring
    microcode and initrds. ``knows_configurations``: ``.confext.raw`` is not a system extension.
    ``strips``: blanks go at both ends of every line, else only behind one.
    """

    sections: tuple[str, ...]
    embedded: tuple[tuple[str, str], ...] = (
        (".pcrsig", "tpm2-pcr-signature.json"),
        (".pcrpkey", "tpm2-pcr-public-key.pem"),
    )
    adds_lines: bool = False
    joins_scopes: bool = False
    adds_initrds: bool = False
    knows_configurations: bool = False
    strips: bool = False

    def clean(self, text: str) -> str:
        """A command line as this stub hands it on: control characters become blanks."""
        return clean(text, strips=self.strips)


STUBS: Mapping[int, Stub] = {
    252: Stub(_SECTIONS_252),
    254: Stub(_SECTIONS_254, adds_lines=True),
    257: Stub(
        _SECTIONS_257,
        embedded=(
            (".pcrsig", "tpm2-pcr-signature.json"),
            (".pcrpkey", "tpm2-pcr-public-key.pem"),
            (".osrel", "os-release"),
        ),
        adds_lines=True,
        joins_scopes=True,
        adds_initrds=True,
        knows_configurations=True,
        strips=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Loader:
    """How one version of systemd-boot behaves.

    ``passes_embedded_line``: it hands the image's own command line to the stub, and measures it
    into PCR 12. ``measures_configuration``: loader.conf goes into PCR 5. ``joins_initrds``: it
    joins the initrds of an entry, padded, where the kernel would join them as they are.
    """

    passes_embedded_line: bool = False
    measures_configuration: bool = False
    joins_initrds: bool = False


LOADERS: Mapping[int, Loader] = {
    252: Loader(passes_embedded_line=True),
    254: Loader(passes_embedded_line=True),
    257: Loader(measures_configuration=True, joins_initrds=True),
}


def measured_sections(image: PeImage, stub: Stub) -> tuple[tuple[str, bytes], ...]:
    """Name and content of the sections that go into PCR 11, in order; an empty one is none."""
    found = ((name, image.section(name)) for name in stub.sections)
    return tuple(
        (name, image.content(section))
        for name, section in found
        if section is not None and section.virtual_size
    )


def clean(text: str, *, strips: bool) -> str:
    """A command line with blanks for control characters and none at its end (or ends)."""
    blank = _CONTROL.sub(" ", text)
    return blank.strip(" ") if strips else blank.rstrip(" ")


@dataclass(frozen=True, slots=True)
class Program:
    """What an EFI image says it is: ``stub``, ``boot``, ``shim`` or ``other``; *its own word*."""

    kind: str
    version: int
    name: str


def program(image: PeImage) -> Program:
    """Read ``.sdmagic``, or shim's generation from ``.sbat``."""
    for section in image.sections:
        content = image.content(section) if section.virtual_size < 65536 else b""
        if section.name == ".sdmagic":
            found = _MAGIC.fullmatch(content.rstrip(b"\0"))
            if found is not None:
                return Program(found[2].decode(), int(found[3]), found[1].decode())
        if section.name == ".sbat" and (shim := _SBAT_SHIM.search(content)):
            return Program("shim", int(shim[1]), f"shim, generation {int(shim[1])}")
    return Program("other", 0, "an image without a version")
