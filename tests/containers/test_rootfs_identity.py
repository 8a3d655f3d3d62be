"""What is refused though every file is in order, and what is accepted though folders differ.

Overlays are mounted here by hand; how real runtimes mount them is in ``test_rootfs_storages``.
"""

from __future__ import annotations

import os
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from imagebuilder import Store

from catena.containers.rootfs import identify, walk
from catena.containers.rootfs.catalog import Catalog
from catena.containers.rootfs.fingerprints import Fingerprints
from catena.containers.rootfs.fit import additions, differences, strangers, whole
from catena.containers.rootfs.identity import RootKind
from catena.containers.rootfs.layer import layer_tree
from catena.containers.rootfs.refusals import (
    AlteredLayer,
    ForeignMount,
    UnknownLayers,
    UnsteadyTree,
    WrittenUpper,
)
from catena.containers.rootfs.tree import Entry, Kind, completed
from catena.formats import layertar
from living import mounts_below
from small_tars import file, folder, link, tar, whiteout

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

LOWER = {"etc/": folder(), "etc/motd": file(b"hello"), "etc/gone": file(b"x"), "bin/sh": file(b"#")}
UPPER = {"etc/.wh.gone": whiteout(), "usr/": folder(), "usr/lib": link("lib64")}


class Lab:
    """An image, its layers unpacked as containerd does it, and overlays of them."""

    def __init__(self, folder: Path, layers=(LOWER, UPPER)) -> None:
        self.folder = folder
        self.store = Store(folder / "layout")
        self.image = self.store.image("example.org/app:1", layers)
        self.catalog = Catalog(self.store)
        self.catalog.add(self.image)
        self.cache = Fingerprints()
        self.lowers = [self.unpack(f"layer-{at}", one) for at, one in enumerate(layers)]
        self._mounted = 0

    def unpack(self, name: str, layer) -> Path:
        place = self.folder / name
        place.mkdir()
        os.chmod(place, 0o755)  # noqa: PTH101
        for path, one in layer_tree(layertar.parse(tar(layer))).items():
            self._make(place / os.fsdecode(path), one)
        self._fill(place, layer)
        return place

    @staticmethod
    def _make(place: Path, one: Entry) -> None:
        if one.kind is Kind.DIRECTORY:
            place.mkdir(exist_ok=True)
            place.chmod(0o755 if one.implied else one.mode)
            if one.opaque:
                os.setxattr(place, "trusted.overlay.opaque", b"y")
        elif one.kind is Kind.WHITEOUT:
            os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))
        elif one.kind is Kind.SYMLINK:
            place.symlink_to(os.fsdecode(one.content))

    @staticmethod
    def _fill(place: Path, layer) -> None:
        for path, one in layer.items():
            if one.kind == b"0" and not Path(path).name.startswith(".wh."):
                (place / path).write_bytes(one.content)
                (place / path).chmod(one.mode)

    def overlay(self, lowers=None, *, upper: bool = True, options: str = "") -> Path:
        self._mounted += 1
        base = self.folder / f"mount-{self._mounted}"
        for name in ("top", "work", "merged"):
            (base / name).mkdir(parents=True)
        lowers = self.lowers if lowers is None else lowers
        words = "lowerdir=" + ":".join(map(str, reversed(lowers))) + options
        if upper:
            words += f",upperdir={base}/top,workdir={base}/work"
        subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", words, base / "merged"], check=True
        )
        return base / "merged"

    def identify(self, root: Path, *, strict: bool = False, mounts=(), table: str = ""):
        return identify(
            root,
            mountinfo=table or Path("/proc/self/mountinfo").read_text(),
            catalog=self.catalog,
            cache=self.cache,
            strict=strict,
            mounts=mounts,
        )

    def close(self) -> None:
        for place in reversed(mounts_below(self.folder)):
            subprocess.run(["umount", "-l", place], check=False)


@pytest.fixture
def lab(tmp_path):
    made = Lab(tmp_path / "lab")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def folder_of_the_lab(tmp_path):
    (tmp_path / "lab").mkdir()


# Accepted ----------------------------------------------------------------------------------


def test_an_overlay_of_an_images_layers_is_identified(lab):
    found = lab.identify(lab.overlay())
    assert (found.kind, found.images) == (RootKind.OVERLAY, (lab.image,))
    assert lab.identify(lab.overlay(upper=False), strict=True).tree == found.tree


def test_layers_without_files_may_come_and_go(lab):
    empty = lab.unpack("empty", {})
    lowers = [empty, lab.lowers[0], empty.with_name("empty-2"), lab.lowers[1]]
    lowers[2].mkdir()
    assert lab.identify(lab.overlay(lowers)).images == (lab.image,)


def test_layers_on_a_file_system_without_attributes_are_identified(lab):
    disk, place = lab.folder / "layers.squashfs", lab.folder / "layers"
    place.mkdir()
    pack = ["mksquashfs", *lab.lowers, disk, "-no-xattrs", "-no-progress", "-quiet"]
    subprocess.run(pack, check=True, capture_output=True)
    mount = ["mount", "-t", "squashfs", "-o", "ro,loop", disk, place]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine has no loop devices")
    with pytest.raises(OSError, match="not supported"):
        os.listxattr(place / lab.lowers[0].name)
    lowers = [place / lower.name for lower in lab.lowers]
    assert lab.identify(lab.overlay(lowers)).images == (lab.image,)


def test_images_that_differ_in_nothing_that_is_compared_are_all_named(lab):
    twin = lab.store.image("example.org/twin:1", [LOWER, UPPER], config={"Cmd": ["/twin"]})
    lab.catalog.add(twin)
    assert lab.identify(lab.overlay()).images == tuple(sorted((lab.image, twin)))


def test_docker_keeps_its_mount_points_in_a_lower_folder_of_their_own(lab):
    points = {
        ".dockerenv": file(mode=0o755), "dev/": folder(), "dev/pts/": folder(), "proc/": folder(),
        "etc/hosts": file(mode=0o755), "etc/mtab": link("/proc/mounts"),
    }  # fmt: skip
    own = lab.unpack("init", points)
    assert lab.identify(lab.overlay([*lab.lowers, own]), strict=True).images == (lab.image,)
    (own / "etc/passwd").write_bytes(b"root::0:0")
    with pytest.raises(WrittenUpper, match="/etc/passwd"):
        lab.identify(lab.overlay([*lab.lowers, own]))


def test_a_refused_root_is_accepted_once_its_image_is_known(lab):
    other = [LOWER, {"opt/app": file(b"app")}]
    root = lab.overlay([lab.lowers[0], lab.unpack("app", other[1])])
    for _ in range(2):
        with pytest.raises(UnknownLayers):
            lab.identify(root)
    image = lab.store.image("example.org/other:1", other)
    lab.catalog.add(image)
    assert lab.identify(root).images == (image,)


def test_folders_with_odd_names_are_found(lab):
    lab.lowers = [
        one.rename(one.with_name(f"{name} {one.name}"))
        for one, name in zip(lab.lowers, ("co:lon", "bl ank\t\n"), strict=True)
    ]
    escaped = [str(one).replace(":", "\\:") for one in lab.lowers]
    assert lab.identify(lab.overlay(escaped), strict=True).images == (lab.image,)


def test_many_starts_at_once_hash_once_and_look_seldom(lab, monkeypatch):
    root, true_stats, walks = lab.overlay(), walk.stats, []

    def slow(descriptor):
        walks.append(descriptor)
        time.sleep(0.01)
        return true_stats(descriptor)

    monkeypatch.setattr(walk, "stats", slow)
    lab.identify(root)
    walks.clear()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: lab.identify(root), range(64)))
    assert {one.images for one in found} == {(lab.image,)}
    assert not any(one.hashed for one in found)
    assert len(walks) < 64 * len(lab.lowers) // 2


# Refused -----------------------------------------------------------------------------------


def test_layers_in_another_order_are_refused(lab):
    with pytest.raises(UnknownLayers, match="order"):
        lab.identify(lab.overlay(lab.lowers[::-1]))


def test_a_missing_or_doubled_layer_is_refused(lab):
    for lowers in ([*lab.lowers[:1], lab.unpack("e", {})], [*lab.lowers, lab.unpack("d", UPPER)]):
        with pytest.raises((UnknownLayers, WrittenUpper)):
            lab.identify(lab.overlay(lowers))


def test_nothing_known_knows_nothing(lab):
    lab.catalog = Catalog(lab.store)
    with pytest.raises(UnknownLayers):
        lab.identify(lab.overlay())


WRITES = {
    "file deleted": lambda root: (root / "etc/motd").unlink(),
    "folder emptied": lambda root: os.setxattr(root.parent / "top", "trusted.overlay.opaque", b"y"),
    "file written": lambda root: (root / "etc/motd").write_bytes(b"evil!"),
    "file copied up": lambda root: (root / "etc/motd").touch(),
    "empty file over a full one": lambda root: (root / "bin/sh").write_bytes(b""),
    "program added": lambda root: (root / "bin/ls").write_bytes(b"#!"),
    "link added": lambda root: (root / "etc/mtab").symlink_to("/etc/shadow"),
    "folder opened to all": lambda root: (root / "etc").chmod(0o777),
    "root opened to all": lambda root: root.chmod(0o777),
    "mount point of others": lambda root: os.chown((root / "proc").mkdir() or root / "proc", 1, 1),
    "device": lambda root: os.mknod(root / "etc/hosts", stat.S_IFCHR, os.makedev(1, 1)),
    "full of files": lambda root: [(root / f"proc{one}").touch() for one in range(4100)],
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_whatever_is_written_on_top_is_refused(lab, write):
    root = lab.overlay()
    lab.identify(root)
    write(root)
    with pytest.raises(WrittenUpper):
        lab.identify(root)


def test_a_lower_folder_that_redirects_is_refused(lab):
    os.setxattr(lab.lowers[1] / "usr", "trusted.overlay.redirect", b"/etc")
    with pytest.raises(ForeignMount, match="redirect"):
        lab.identify(lab.overlay())


def test_something_mounted_inside_is_refused(lab):
    root = lab.overlay()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "bin"], check=True)
    with pytest.raises(ForeignMount, match="inside"):
        lab.identify(root)


def test_something_mounted_inside_a_layer_is_refused(lab):
    root = lab.overlay()
    subprocess.run(["mount", "--bind", lab.lowers[0], lab.lowers[1] / "usr"], check=True)
    with pytest.raises(ForeignMount, match="inside"):
        lab.identify(root)


def test_a_root_that_is_named_through_a_link_is_refused(lab):
    alias = lab.folder / "alias"
    alias.symlink_to(lab.overlay())
    with pytest.raises(ForeignMount, match="own path"):
        lab.identify(alias)


def test_a_root_that_is_not_there_is_refused(lab):
    with pytest.raises(UnsteadyTree):
        lab.identify(lab.folder / "nothing")


def test_a_mount_table_of_elsewhere_is_refused(lab):
    table = "1 0 0:1 / / rw - ext4 none rw\n"
    with pytest.raises(ForeignMount, match="cannot see"):
        lab.identify(lab.overlay(), table=table)


def swap(lab, path: str) -> Path:
    """Mount an altered file, and put good ones where the mount's options point to."""
    good = lab.lowers[0]
    (good / path).write_bytes(b"!")
    root = lab.overlay()
    good.rename(good.with_name("moved"))
    lab.unpack(good.name, LOWER)
    assert (root / path).read_bytes() == b"!"
    return root


def test_folders_exchanged_behind_a_mount_are_noticed_by_their_inodes(lab):
    with pytest.raises(ForeignMount, match="other folders"):
        lab.identify(swap(lab, "bin/sh"))


def test_folders_exchanged_with_care_are_noticed_when_strict(lab):
    root = swap(lab, "etc/motd")
    good, moved = lab.lowers[0] / "bin/sh", lab.lowers[0].with_name("moved") / "bin/sh"
    good.unlink()
    os.link(moved, good)
    lab.identify(root)  # root did this, file by file: only the mount itself tells
    with pytest.raises(AlteredLayer, match="/etc/motd"):
        lab.identify(root, strict=True)


def test_files_that_change_while_they_are_read_are_refused(lab, monkeypatch):
    true_listing = walk.listing

    def interrupted(descriptor, marks, **options):
        found = true_listing(descriptor, marks, **options)
        (lab.lowers[0] / "bin/sh").write_bytes(b"!")
        return found

    monkeypatch.setattr(walk, "listing", interrupted)
    with pytest.raises(UnsteadyTree):
        lab.identify(lab.overlay())


def test_a_refusal_is_remembered_but_not_what_led_to_it(lab):
    (lab.lowers[0] / "bin/sh").write_bytes(b"!")
    root = lab.overlay()
    errors = []
    for _ in range(2):
        with pytest.raises(AlteredLayer, match="/bin/sh") as refused:
            lab.identify(root)
        errors.append(refused.value)
    kept = lab.catalog.refused._answers.values()
    assert all(one.__traceback__ is None for one in kept)
    assert errors[0] is not errors[1]


# Folders that a layer implies --------------------------------------------------------------


def tree_of(layer):
    return layer_tree(layertar.parse(tar(layer)))


def on_disk(mode: int, uid: int = 0, **more):
    made = Entry(Kind.DIRECTORY, mode, uid, 0, **more)
    motd = tree_of({"a/b": file(b"x")})[b"a/b"]
    return completed({b"": Entry(Kind.DIRECTORY, 0o755), b"a": made, b"a/b": motd})


@pytest.mark.parametrize(
    ("mode", "uid", "faults"),
    [(0o755, 0, []), (0o700, 5, []), (0o777, 0, [b"a"]), (0o755, 5, [b"a"]), (0o700, 0, [b"a"])],
)
def test_an_implied_folder_is_as_runtimes_make_it_or_as_below(mode, uid, faults):
    wanted, below = tree_of({"a/b": file(b"x")}), tree_of({"a/": folder(0o700, 5)})
    assert list(differences(wanted, on_disk(mode, uid), below)) == faults


def test_an_explicit_folder_is_as_the_layer_says():
    wanted = tree_of({"a/": folder(0o711), "a/b": file(b"x")})
    assert list(differences(wanted, on_disk(0o755), {})) == [b"a"]
    assert list(differences(wanted, on_disk(0o711), {})) == []


def test_an_implied_folder_has_no_marks_or_attributes_of_its_own():
    wanted = tree_of({"a/b": file(b"x")})
    assert list(differences(wanted, on_disk(0o755, opaque=True), {})) == [b"a"]
    rights = (("system.posix_acl_default", b"\2\0\0\0"),)
    assert list(differences(wanted, on_disk(0o755, attributes=rights), {})) == [b"a"]


def test_podman_may_soften_a_folder_that_an_upper_layer_implies():
    image = whole([tree_of({"a/": folder(0o1777)}), tree_of({"a/b": file(b"x")})])
    assert list(strangers(image, on_disk(0o1777), ())) == []
    assert list(strangers(image, on_disk(0o755), ())) == []
    assert list(strangers(image, on_disk(0o777), ())) == [b"a"]
    firm = whole([tree_of({"a/b": file(b"x")}), tree_of({"a/": folder(0o1777)})])
    assert list(strangers(firm, on_disk(0o755), ())) == [b"a"]


def test_what_an_image_has_must_be_there_and_what_runtimes_add_may_be():
    image = whole([tree_of({"a/b": file(b"x"), "etc/": folder()})])
    found = on_disk(0o755)
    assert list(strangers(image, found, ())) == [b"etc"]
    place = Entry(Kind.DIRECTORY, 0o755)
    assert list(additions(image, completed({b"proc": place, b"data": place}), ())) == [b"", b"data"]
    top = {b"": place, b"data": place, b"data/x": place}
    assert list(additions(image, top, ("/data/x/",))) == []
