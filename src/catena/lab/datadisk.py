"""The machine's second disk: what a node pulled, and what it may be told to run.

::

    images/             an OCI image layout: manifests, layers, signatures, launch policies
    archives/NAME.tar   a layout as one file, which containerd imports
    layers/NAME/        the layers unpacked, as a snapshotter keeps them
    bundles/NAME/       config.json for the runtime, and the names of its layers, top first

Nothing on it is trusted, and the attacks of ``container_attacks`` are bundles and images of it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from catena.lab import bundles, images
from catena.lab.bundles import Bundle, Mount
from catena.lab.images import Image, Layer
from catena.lab.tools import TAR
from catena.lab.workspace import SECRET
from catena.osimage.tool import MKSQUASHFS, run

REGISTRY = "registry.lab.catena.internal"
MOUNT = Mount(f"/run/catena/secrets/{SECRET}", f"/run/secrets/{SECRET}")
LABEL = "catena lab workload"
"""What the workload hashes behind the secret."""

ROGUE_RUNS = "a rogue program runs"
"""What an attacker's container would print."""

_PROVE = "/app/prove"
_ROGUE = "/app/rogue"
_PROVE_SCRIPT = f"""#!/bin/sh
# Proves that the secret arrived, without showing it.
set -e
proof=$({{ cat "$1"; echo -n '{LABEL}'; }} | sha256sum)
echo "proof ${{proof%% *}}"
"""
_ROGUE_SCRIPT = f"""#!/bin/sh
# {{name}}
echo '{ROGUE_RUNS}'
exec cat "$1"
"""


def repository(name: str) -> str:
    """A repository of the lab's registry, which exists by name only."""
    return f"{REGISTRY}/{name}"


def web() -> Image:
    """What the publisher means to run: proves that it holds the secret."""
    layers = (images.busybox_layer(), images.program_layer(_PROVE, _PROVE_SCRIPT.encode()))
    return Image(f"{repository('acme/web')}:1", layers, (_PROVE, MOUNT.destination))


def rogue(name: str) -> Image:
    """What would show the secret, with a digest of its own for every repository."""
    script = _ROGUE_SCRIPT.format(name=name).encode()
    layers = (images.busybox_layer(), images.program_layer(_ROGUE, script))
    return Image(f"{repository(name)}:1", layers, (_ROGUE, MOUNT.destination))


def patched(image: Image) -> tuple[Layer, ...]:
    """The image's layers, one bit of the last file changed: what a disk held by others has."""
    *below, top = image.layers
    *others, last = top.entries
    content = bytearray(last.content)
    content[len(content) // 2] ^= 1
    return (*below, Layer((*others, replace(last, content=bytes(content)))))


def everything(good: Image, bad: Sequence[tuple[str, Image]]) -> tuple[Bundle, ...]:
    """All bundles: ``web``, it twice as it must not run, and the ``bad`` images by name."""
    mine = bundles.of("web", good, MOUNT)
    shell = ("/bin/sh", "-c", f"echo '{ROGUE_RUNS}'; cat {MOUNT.destination}")
    return (
        mine,
        replace(mine, name="patched-layer", layers=patched(good)),
        replace(mine, name="other-argv", argv=shell),
        *(bundles.of(name, image, MOUNT) for name, image in bad),
    )


def build(layout: Path, things: Sequence[Bundle], archived: Image, output: Path) -> None:
    """Pack an image layout, bundles, and an archive for containerd into a squashfs image; equal inputs give equal bytes."""
    with tempfile.TemporaryDirectory(dir=output.parent, prefix="data-disk-") as scratch:
        root, partial = Path(scratch) / "root", Path(scratch) / "disk.img"
        for one in things:
            one.stage(root)
        shutil.copytree(layout, root / "images")
        _archive(archived, root / "archives" / "web")
        run(
            MKSQUASHFS,
            [
                *(str(root), str(partial), "-noappend", "-no-progress", "-exit-on-error"),
                *("-all-root", "-root-mode", "0755", "-mkfs-time", "0", "-all-time", "0"),
                *("-comp", "zstd", "-Xcompression-level", "4"),
            ],
        )
        partial.replace(output)


def _archive(image: Image, place: Path) -> None:
    """``place`` with the suffix ``.tar``: a layout of one image."""
    images.write_layout(place, (image,))
    plain = ("--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner")
    run(TAR, ["-C", str(place), *plain, "-cf", f"{place}.tar", "."])
    shutil.rmtree(place)
