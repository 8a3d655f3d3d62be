"""From a container's root back to the image that its files are, by content alone.

1. The root is an absolute folder without links on the way, on a local file system, with nothing
   mounted inside and no mapping of owners.
2. If an overlay is mounted there: each lower folder's files are those of a layer, and the layers, bottom
   first, are those of a known image. Layers without files do not count: storage drivers
   keep or drop them. The upper folder holds only what runtimes put there before the start.
3. Otherwise its files are those of a known image with all layers applied, and what runtimes add.
4. ``strict``: everything is hashed again, and an overlay's files once more *through the mount*, as
   the container will see them; without it the names in the mount's options are believed.

What is not proven: that nothing changes between this and the start, or later. On a running system only
the host's root can do that.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from catena.containers.rootfs import walk
from catena.containers.rootfs.catalog import Catalog
from catena.containers.rootfs.fingerprints import Fingerprints
from catena.containers.rootfs.identity import RootIdentity, RootKind
from catena.containers.rootfs.layered import identify_overlay
from catena.containers.rootfs.looking import (
    Folder,
    Looking,
    by_files,
    identity_of,
    refuse,
    refuse_again,
)
from catena.containers.rootfs.mounts import check_folder, mount_of, overlay_of, parse_mounts
from catena.containers.rootfs.nearest import refuse_whole
from catena.containers.rootfs.refusals import ForeignMount


def identify(
    root: Path,
    *,
    mountinfo: str,
    catalog: Catalog,
    cache: Fingerprints,
    strict: bool,
    mounts: Collection[str] = (),
) -> RootIdentity:
    """Which image the files at ``root`` are.

    ``mountinfo`` is this process's own; ``mounts`` are the places that the container's configuration
    mounts on, where empty files and folders may be left from an earlier start. Raises a
    ``RootRefused``.
    """
    listed = parse_mounts(mountinfo)
    with walk.opened(root) as descriptor:
        if Path(f"/proc/self/fd/{descriptor}").readlink() != root:
            raise ForeignMount("the root is not named by its own path", got=ascii(str(root)[-128:]))
        check_folder(descriptor, listed)
        mount = mount_of(descriptor, listed)
        looking = Looking(catalog, cache, listed, tuple(sorted(mounts)), strict)
        if mount.type == "overlay" and mount.root == "/" and mount.point == str(root):
            return identify_overlay(looking, descriptor, overlay_of(mount))
        return _directory(looking, descriptor)


def _directory(looking: Looking, descriptor: int) -> RootIdentity:
    folder = Folder(
        looking,
        Path(f"/proc/self/fd/{descriptor}"),
        None,
        looking.contents(descriptor, None),
    )
    question = ("files", folder.contents.digest, looking.mounts)
    refuse_again(looking.catalog, question)
    chains = by_files(looking, folder)
    if not chains:
        error = refuse_whole(looking.catalog, folder.tree(), looking.mounts)
        refuse(looking.catalog, question, error)
    return identity_of(RootKind.DIRECTORY, chains, folder.contents.hashed)
