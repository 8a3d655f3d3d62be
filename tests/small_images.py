"""Images small enough to reason about: PE files, a stub, a kernel, kernel modules, a tree,
and an independent reader of initrds."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

SDMAGIC = b"#### LoaderInfo: systemd-stub 252.39-1 ####\0"
KERNEL_RELEASE = "6.1.0-test"


def small_pe(
    sections: tuple[tuple[str, bytes], ...] = ((".text", b"code" * 100), (".data", b"data")),
    *,
    tail: bytes = b"",
    wide: bool = True,
) -> bytes:
    """A PE32+ (or PE32) image with these sections, file alignment 512, and room for headers."""
    directories_at = 112 if wide else 96
    optional = bytearray(directories_at + 16 * 8)
    struct.pack_into("<H", optional, 0, 0x20B if wide else 0x10B)
    struct.pack_into("<II", optional, 32, 0x1000, 512)
    struct.pack_into("<II", optional, 56, 0x1000 * (len(sections) + 1), 1024)
    struct.pack_into("<I", optional, 64, 0xC0FFEE)
    struct.pack_into("<I", optional, directories_at - 4, 16)
    coff = struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, len(optional), 0x206)
    table, body = b"", b""
    for number, (name, content) in enumerate(sections, start=1):
        stored = content + bytes(-len(content) % 512)
        table += name.encode().ljust(8, b"\0") + struct.pack(
            "<IIIIIIHHI", len(content), 0x1000 * number, len(stored), 1024 + len(body), 0, 0, 0, 0, 0x40000040
        )  # fmt: skip
        body += stored
    header = b"MZ".ljust(0x3C, b"\0") + (0x40).to_bytes(4, "little")
    headers = header + b"PE\0\0" + coff + bytes(optional) + table
    return headers.ljust(1024, b"\0") + body + tail


def small_stub(magic: bytes = SDMAGIC) -> bytes:
    """A stub in the eyes of the builder: it would not run, but is measured all the same."""
    return small_pe(((".text", b"\xc3" * 64), (".sbat", b"sbat,1\n"), (".sdmagic", magic)))


def small_kernel(release: str = KERNEL_RELEASE) -> bytes:
    """The head of a bzImage: magic and version string."""
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    head[0x20E:0x210] = (0x100).to_bytes(2, "little")
    text = f"{release} (builder@host) #1".encode()
    head[0x300 : 0x300 + len(text)] = text
    return bytes(head)


def small_module(name: str, depends: str = "") -> bytes:
    """A kernel module with nothing but ``.modinfo``."""
    info = f"license=GPL\0depends={depends}\0name={name}\0".encode()
    names = b"\0.modinfo\0.shstrtab\0"
    at = 64 + 3 * 64
    sections = (
        bytes(64)
        + struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, at, len(info), 0, 0, 1, 0)
        + struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, at + len(info), len(names), 0, 0, 1, 0)
    )
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 3, 2)
    return header + sections + info + names


def make_modules(folder: Path, release: str = KERNEL_RELEASE) -> Path:
    """A modules folder: ``disk`` needs ``bus``, ``bus`` needs ``core-lib``; ``tpm`` is built in."""
    modules = folder / release
    (modules / "kernel/drivers").mkdir(parents=True)
    for name, depends in (("disk", "bus"), ("bus", "core_lib"), ("core-lib", ""), ("net", "")):
        (modules / f"kernel/drivers/{name}.ko").write_bytes(small_module(name, depends))
    (modules / "modules.builtin").write_text("kernel/drivers/char/tpm/tpm.ko\n")
    return modules


def make_tree(root: Path) -> Path:
    """A root file system whose programs need no libraries (and do nothing)."""
    for name in ("usr/bin", "usr/sbin", "usr/lib/x86_64-linux-gnu", "usr/lib64", "etc", "var/log"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "usr/bin/busybox").write_bytes(small_module("busybox"))
    (root / "usr/sbin/dmsetup").write_bytes(small_module("dmsetup"))
    (root / "etc/os-release").write_text("ID=test\nVERSION_ID=1\n")
    (root / "var/log/noise").write_text("not in the image")
    return root


def make_linked_tree(root: Path) -> Path:
    """As ``make_tree``, but ``dmsetup`` is a dynamic program (really ``true``) with libraries."""
    make_tree(root)
    program = shutil.which("true")
    assert program is not None
    shutil.copy(program, root / "usr/sbin/dmsetup")
    listing = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    for word in listing.split():
        if word.startswith("/") and Path(word).is_file():
            place = root / Path(word).resolve().relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, place)
            if not os.path.lexists(root / word[1:]):
                (root / word[1:]).symlink_to(Path(word).resolve())
    return root


def read_cpio(data: bytes) -> dict[str, tuple[int, tuple[int, int], bytes]]:
    """Read newc independently of the writer: name → (mode, device, content)."""
    found: dict[str, tuple[int, tuple[int, int], bytes]] = {}
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name_end = at + 110 + fields[11]
        name = data[at + 110 : name_end - 1].decode()
        start = name_end + -name_end % 4
        content = data[start : start + fields[6]]
        assert (fields[2], fields[3], fields[5]) == (0, 0, 0)
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], (fields[9], fields[10]), content)
        at = start + fields[6] + -fields[6] % 4
