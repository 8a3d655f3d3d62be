"""Kernel modules for the initrd, in the order they must be loaded.

Dependencies are read from the modules themselves (``depends=`` in ``.modinfo``), so that a
freshly unpacked kernel package needs no ``depmod``. Names are compared as the kernel does:
``-`` equals ``_``.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from catena.errors import FormatError, NotFound
from catena.osimage import elf

DEFAULT_MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "dm-mod",
    "dm-verity",
    "squashfs",
    "overlay",
    "efivarfs",
)
"""What a virtual machine needs to reach its root; dependencies come by themselves."""

MAX_MODULE = 64 * 1024 * 1024
_SUFFIXES = (".ko", ".ko.xz")


class MissingModule(NotFound):
    """A kernel module that is neither built in nor in the modules folder."""

    code = "missing-module"
    remedy = "Give the modules folder of this very kernel, or leave the module out."


@dataclass(frozen=True, slots=True)
class Module:
    """One module, uncompressed; its signature is the last part of ``content``."""

    name: str
    content: bytes


def in_load_order(folder: Path, names: Sequence[str]) -> tuple[Module, ...]:
    """The named modules with all they depend on, dependencies first.

    Modules that are built into the kernel are left out. Raises ``MissingModule``.
    """
    files = {_normal(path.name.split(".ko")[0]): path for path in sorted(folder.rglob("*.ko*"))}
    builtin = _builtin(folder)
    loaded: dict[str, Module] = {}

    def load(name: str, wanted_by: tuple[str, ...]) -> None:
        if name in loaded or name in builtin:
            return
        path = files.get(name)
        if path is None or not path.name.endswith(_SUFFIXES):
            raise MissingModule(f"no kernel module {name}", got=str(folder))
        if name in wanted_by:
            raise FormatError(f"kernel module {name} depends on itself")
        module = Module(name, _read(path))
        for dependency in _depends(module):
            load(dependency, (*wanted_by, name))
        loaded[name] = module

    for name in names:
        load(_normal(name), ())
    return tuple(loaded.values())


def _depends(module: Module) -> list[str]:
    listed = elf.module_info(module.content).get("depends", "")
    return [_normal(name) for name in listed.split(",") if name]


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    if not path.name.endswith(".xz"):
        return content
    try:
        return lzma.LZMADecompressor().decompress(content, MAX_MODULE)
    except lzma.LZMAError as error:
        raise FormatError(f"kernel module {path.name} is not xz") from error


def _builtin(folder: Path) -> frozenset[str]:
    """Names in ``modules.builtin``: one path per line."""
    listing = folder / "modules.builtin"
    lines = listing.read_text().splitlines() if listing.is_file() else []
    return frozenset(_normal(Path(line).name.removesuffix(".ko")) for line in lines)


def _normal(name: str) -> str:
    return name.replace("-", "_")
