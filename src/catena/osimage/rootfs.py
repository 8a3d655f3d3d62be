"""The root file system: a squashfs image whose bytes depend on the tree's content only.

File dates are set to zero, files are packed in name order, and one compressor thread or many
give the same image (squashfs-tools 4.4 and later are reproducible).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from catena.osimage.tool import MKSQUASHFS, run
from catena.osimage.tree import Tree

DEFAULT_EXCLUDES = (
    "var/cache/apt/*",
    "var/lib/apt/lists/*",
    "var/log/*",
    "usr/share/doc/*",
    "usr/share/man/*",
    "usr/share/locale/*",
    "... __pycache__",
    "boot/*",
    "dev/*",
    "proc/*",
    "run/*",
    "sys/*",
    "tmp/*",
)
"""Left out of every image (mksquashfs wildcards; ``...`` matches at any depth). ``/var``,
``/run`` and ``/tmp`` are empty memory file systems at run time anyway."""


def build(tree: Tree, excludes: Sequence[str], output: Path) -> None:
    """Pack ``tree`` into ``output``. Raises ``UnreadableTree``, ``MissingTool`` or ``ToolFailed``."""
    tree.check_readable()
    arguments = [
        str(tree.root),
        str(output),
        "-noappend",
        "-no-progress",
        "-no-exports",
        "-exit-on-error",
        "-mkfs-time", "0",
        "-all-time", "0",
        "-root-mode", "0755",
        "-comp", "zstd",
        "-Xcompression-level", "4",
        "-b", "128K",
        "-wildcards",
    ]  # fmt: skip
    for pattern in excludes:
        arguments += ["-e", pattern]
    run(MKSQUASHFS, arguments)
