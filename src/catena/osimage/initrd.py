"""The initrd: busybox, dmsetup, a few kernel modules and one script that fails closed.

Everything but the script (``init.sh``) comes from the release's own tree, so a release has no
second supply chain. dmsetup takes the verity parameters as arguments: nothing on a disk is
parsed before the kernel verifies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path, PurePosixPath

from catena.errors import FormatError
from catena.osimage import cpio, elf, modules
from catena.osimage.tool import ZSTD, run
from catena.osimage.tree import Tree

_PROGRAM_FOLDERS = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
_LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/lib",
    "/lib",
)
_APPLETS = (
    "cat", "cut", "dd", "hexdump", "insmod", "mount", "poweroff", "sed", "sh", "sleep", "switch_root",
)  # fmt: skip
_FOLDERS = ("dev", "proc", "sys", "sysroot", "tmp", "run")
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


def build(tree: Tree, module_folder: Path, module_names: Sequence[str]) -> bytes:
    """The compressed initrd. Equal input gives equal bytes.

    Raises ``NotInTree``, ``MissingModule``, ``FormatError`` or ``ToolFailed``.
    """
    loaded = modules.in_load_order(module_folder, module_names)
    entries = [
        cpio.file(_path("init"), (files(__package__) / "init.sh").read_bytes(), executable=True),
        cpio.character_device(_path("dev/console"), 5, 1),
        cpio.file(_path("modules/order"), "".join(f"{one.name}.ko\n" for one in loaded).encode()),
        *(cpio.file(_path(f"modules/{one.name}.ko"), one.content) for one in loaded),
        *(cpio.folder(_path(name)) for name in _FOLDERS),
        *(cpio.link(_path(name), target) for name, target in _LINKS.items()),
        *(cpio.link(_path(f"usr/bin/{applet}"), "busybox") for applet in _APPLETS),
        *_programs(tree, ("busybox", "dmsetup")),
    ]
    return run(ZSTD, ("-9", "-T1", "--no-check"), content=cpio.archive(entries))


def loaded_modules(initrd: bytes) -> dict[PurePosixPath, bytes]:
    """The kernel modules that an initrd of ours loads, by the path it loads them from.

    Raises ``FormatError`` or ``ToolFailed``.
    """
    files = cpio.read_files(run(ZSTD, ("-d", "-q", "-c"), content=initrd))
    order = files.get(_path("modules/order"), b"").decode("ascii", errors="replace")
    paths = [_path(f"modules/{name}") for name in order.splitlines()]
    missing = [path for path in paths if path not in files]
    if missing:
        raise FormatError("the initrd lacks a module that it loads", got=ascii(str(missing[0])))
    return {path: files[path] for path in paths}


def _programs(tree: Tree, names: Sequence[str]) -> list[cpio.Entry]:
    """The programs in ``/usr/bin`` and every library they load, at the path the loader expects."""
    placed: dict[PurePosixPath, bytes] = {}
    pending: list[str] = []
    for name in names:
        content = tree.read(tree.find(name, _PROGRAM_FOLDERS))
        placed[_path(f"usr/bin/{name}")] = content
        needs = elf.linkage(content)
        pending.extend(needs.needed)
        if needs.interpreter is not None:
            loader = PurePosixPath(needs.interpreter)
            placed[_usr(loader)] = tree.read(loader)
    while pending:
        library = pending.pop()
        found = tree.find(library, _LIBRARY_FOLDERS)
        place = _usr(found.parent) / library
        if place not in placed:
            placed[place] = tree.read(found)
            pending.extend(elf.linkage(placed[place]).needed)
    return [cpio.file(path, content, executable=True) for path, content in placed.items()]


def _path(name: str) -> PurePosixPath:
    return PurePosixPath("/") / name


def _usr(path: PurePosixPath) -> PurePosixPath:
    """The path below ``/usr``, where the initrd's ``/lib`` and ``/lib64`` point."""
    return path if path.parts[1] == "usr" else PurePosixPath("/usr", *path.parts[1:])
