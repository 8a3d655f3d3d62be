"""Roots as real storage drivers make them: identified by their files, refused once one is changed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path

import pytest
from imagebuilder import Existing, Store
from storages import Containerd, Podman, command, missing, unmount_below, unpacked

from catena.containers.rootfs import identify, mounts
from catena.containers.rootfs.catalog import Catalog
from catena.containers.rootfs.fingerprints import Fingerprints
from catena.containers.rootfs.identity import RootKind
from catena.containers.rootfs.refusals import AlteredLayer, RootRefused, UnknownLayers, WrittenUpper
from small_tars import device, fifo, file, folder, hard_link, link, tar, whiteout

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

SOURCE = Path(__file__).resolve().parents[2] / "src"
BUSYBOX = Path("/bin/busybox")
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
NAME = "example.org/app:1"
BASE = {
    "bin/": folder(),
    "bin/busybox": file(BUSYBOX.read_bytes() if BUSYBOX.exists() else b"", 0o755),
    "bin/sh": link("busybox"),
    "bin/true": hard_link("bin/busybox", 0o755),
    "bin/ping": file(b"ping", 0o755, xattrs={"security.capability": CAPABILITY}),
    "etc/": folder(),
    "etc/conf": file(b"one"),
    "etc/gone": file(b"x"),
    "dev/null": device(1, 3, 0o666),
    "run/pipe": fifo(),
    "opaque/": folder(0o700, 5, 5),
    "opaque/old": file(b"old"),
    "tmp/": folder(0o1777),
    "tmp/su": file(b"su", 0o4755, 1000, 1000),
}
CHANGES = {
    "etc/.wh.gone": whiteout(),
    "opaque/": folder(0o700, 5, 5),
    "opaque/.wh..wh..opq": whiteout(),
    "opaque/new": file(b"new"),
    "tmp/below": file(b"its folder is implied, and is 1777 in the layer below"),
    "srv/deep/file": file(b"its folders are implied, and in no layer"),
}
EMPTY: dict = {}
LAYERS = [BASE, CHANGES, EMPTY, {"etc/conf": file(b"two")}]
STORAGES = {
    "podman overlay": (Podman, "overlay"),
    "podman vfs": (Podman, "vfs"),
    "containerd overlayfs": (Containerd, "overlayfs"),
    "containerd native": (Containerd, "native"),
}
KINDS = {
    "overlay": RootKind.OVERLAY,
    "overlayfs": RootKind.OVERLAY,
    "vfs": RootKind.DIRECTORY,
    "native": RootKind.DIRECTORY,
}


class Known:
    """A layout with one image, and what identifies it."""

    def __init__(self, place: Path, layers) -> None:
        self.store = Store(place)
        self.image = self.store.image(NAME, layers)
        self.catalog = Catalog(self.store)
        self.catalog.add(self.image)
        self.cache = Fingerprints()

    def identify(self, root: Path, *, strict: bool = False, mounts=()):
        return identify(
            root,
            mountinfo=Path("/proc/self/mountinfo").read_text(),
            catalog=self.catalog,
            cache=self.cache,
            strict=strict,
            mounts=mounts,
        )


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    return Known(tmp_path_factory.mktemp("image") / "layout", LAYERS)


@pytest.fixture(scope="module")
def storages(known, tmp_path_factory):
    """Each storage, made when it is first asked for: tests come in any order."""
    made = {}

    def get(name):
        if name not in made:
            make, driver = STORAGES[name]
            made[name] = make(tmp_path_factory.mktemp("storage") / "s", driver)
            made[name].pull(known.store.folder, NAME)
        return made[name]

    yield get
    for one in made.values():
        one.close()


@pytest.fixture(params=STORAGES)
def storage(request, storages):
    return storages(request.param)


def kind_of(storage):
    return KINDS[storage.driver if isinstance(storage, Podman) else storage.snapshotter]


def test_a_new_containers_root_is_identified(storage, known):
    root = storage.container()
    first, second = known.identify(root), known.identify(root)
    assert first.kind is kind_of(storage)
    assert first.images == (known.image,)
    assert len(first.layers) == len(LAYERS)
    assert second.hashed == 0
    strict = known.identify(root, strict=True)
    assert strict.hashed > BUSYBOX.stat().st_size
    assert first.layers == second.layers == strict.layers
    (chain,) = known.catalog.chains()
    assert {first.tree, strict.tree} == {chain.tree}


# Layers patched on disk --------------------------------------------------------------------


def place_of(root: Path, path: str) -> Path:
    """Where a file of the container lies on disk: in the lower folder that shows it."""
    table = mounts.parse_mounts(Path("/proc/self/mountinfo").read_text())
    found = map(table.mount, table.lines)
    mount = next((one for one in found if one.point == str(root)), None)
    if mount is None or mount.type != "overlay":
        return root / path
    lowers = reversed(mounts.overlay_of(mount).lowers)
    return next(found for one in lowers if os.path.lexists(found := one / path))


def patched(place: Path):
    """The same length, and the old times put back."""
    before, content = place.stat(), place.read_bytes()
    with place.open("r+b") as stream:
        stream.write(content[:-1] + bytes((content[-1] ^ 1,)))
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    return lambda: place.write_bytes(content)


def added(place: Path):
    other = place.with_name("added")
    other.write_bytes(b"")
    return other.unlink


def removed(place: Path):
    kept = place.parents[-2] / f"kept-{os.getpid()}"
    shutil.copy2(place, kept)
    place.unlink()

    def undo():
        shutil.copy2(kept, place)
        kept.unlink()

    return undo


def remoded(place: Path):
    mode = stat.S_IMODE(place.stat().st_mode)
    place.chmod(mode ^ 0o4000)
    return lambda: place.chmod(mode)


def reowned(place: Path):
    status = place.stat()
    os.chown(place, status.st_uid + 1, -1)

    def undo():
        os.chown(place, status.st_uid, -1)
        place.chmod(stat.S_IMODE(status.st_mode))

    return undo


def empowered(place: Path):
    os.setxattr(place, "security.capability", CAPABILITY)
    return lambda: os.removexattr(place, "security.capability")


def disempowered(place: Path):
    os.removexattr(place, "security.capability")
    return lambda: os.setxattr(place, "security.capability", CAPABILITY)


def retargeted(place: Path):
    target = place.readlink()
    place.unlink()
    place.symlink_to("true")

    def undo():
        place.unlink()
        place.symlink_to(target)

    return undo


PATCHES = {
    "content": (patched, "bin/busybox", "/bin/busybox"),
    "content of an upper layer": (patched, "etc/conf", "/etc/conf"),
    "file added": (added, "opaque/new", "/opaque/added"),
    "file removed": (removed, "srv/deep/file", "/srv/deep/file"),
    "mode": (remoded, "bin/ping", "/bin/ping"),
    "owner": (reowned, "tmp/below", "/tmp/below"),
    "mode of a folder": (remoded, "opaque", "/opaque"),
    "mode of an implied folder": (remoded, "srv/deep", "/srv/deep"),
    "capability added": (empowered, "bin/busybox", "/bin/busybox"),
    "capability removed": (disempowered, "bin/ping", "/bin/ping"),
    "link retargeted": (retargeted, "bin/sh", "/bin/sh"),
}


@pytest.mark.parametrize(("patch", "path", "named"), PATCHES.values(), ids=PATCHES)
def test_a_layer_that_was_patched_on_disk_is_refused(storage, known, patch, path, named):
    root = storage.container()
    known.identify(root)
    undo = patch(place_of(root, path))
    try:
        for strict in (False, True):
            with pytest.raises(AlteredLayer) as refused:
                known.identify(root, strict=strict)
            assert named in str(refused.value)
    finally:
        undo()
    assert known.identify(root).images == (known.image,)


def test_files_of_no_known_image_are_refused(storage, tmp_path):
    other = Known(tmp_path / "layout", [{"unrelated": file(b"x")}])
    with pytest.raises(UnknownLayers):
        other.identify(storage.container())


def test_something_written_into_the_container_is_refused(storage, known):
    root = storage.container()
    (root / "bin/evil").write_bytes(b"#!/bin/sh\n")
    with pytest.raises(RootRefused) as refused:
        known.identify(root)
    expected = WrittenUpper if kind_of(storage) is RootKind.OVERLAY else AlteredLayer
    assert isinstance(refused.value, expected)
    assert "/bin/evil" in str(refused.value)


@pytest.mark.parametrize(
    "write",
    [
        lambda root: (root / "etc/conf").unlink(),
        lambda root: shutil.rmtree(root / "opaque"),
        lambda root: (root / "etc").chmod(0o777),
        lambda root: (root / "etc/conf").write_bytes(b""),
        lambda root: (root / "mnt").mkdir(),
        lambda root: (root / "proc").mkdir(mode=0o777) or (root / "proc").chmod(0o777),
        lambda root: (root / "etc/hosts").write_bytes(b"6.6.6.6 registry"),
        lambda root: (root / "etc/ld.so.preload").write_bytes(b""),
    ],
    ids=["file", "folder", "mode", "emptied", "folder added", "open", "hosts", "empty file"],
)
def test_what_no_runtime_does_to_a_root_is_refused(storage, known, write):
    root = storage.container()
    write(root)
    with pytest.raises(RootRefused):
        known.identify(root)


def test_places_that_runtimes_mount_on_are_accepted_where_they_are_known(storage, known):
    root = storage.container()
    for path in ("proc", "sys", "data/volume"):
        (root / path).mkdir(parents=True)
    (root / "etc/hosts").touch(0o755)
    with pytest.raises(RootRefused, match="/data"):
        known.identify(root)
    assert known.identify(root, mounts=("/data/volume",)).images == (known.image,)


# Real starts -------------------------------------------------------------------------------

SHIM = """#!{python}
import json, os, sys, traceback
from pathlib import Path
sys.path[:0] = [{source!r}, {here!r}, {tests!r}]
words = sys.argv[1:]
if "create" in words or "run" in words:
    try:
        from imagebuilder import Existing
        from catena.containers.rootfs import identify
        from catena.containers.rootfs.catalog import Catalog
        from catena.containers.rootfs.fingerprints import Fingerprints
        at = next(number for number, one in enumerate(words) if one in ("--bundle", "-b"))
        bundle = Path(words[at + 1])
        config = json.loads((bundle / "config.json").read_bytes())
        catalog = Catalog(Existing(Path({layout!r})))
        catalog.add({image!r})
        found = identify(
            bundle / config["root"]["path"], mountinfo=Path("/proc/self/mountinfo").read_text(),
            catalog=catalog, cache=Fingerprints(), strict=True,
            mounts=[one["destination"] for one in config["mounts"]],
        )
        said = found.kind + " " + " ".join(found.images)
        root = str(bundle / config["root"]["path"])
        (Path({log!r}).parent / "mounted").write_text(next(
            (one for one in Path("/proc/self/mountinfo").read_text().splitlines() if root in one), ""
        ))
    except Exception:
        said = traceback.format_exc()
    with open({log!r}, "a") as log:
        print(said, file=log)
os.execv({runc!r}, ["runc", *words])
"""


@pytest.fixture
def shim(tmp_path, known):
    return shim_for(known, tmp_path)


def shim_for(known: Known, folder: Path) -> Path:
    """A runtime that identifies the root of what it is asked to create, and tells."""
    log = folder / "log"
    text = SHIM.format(
        python=sys.executable,
        source=str(SOURCE),
        here=str(Path(__file__).parent),
        tests=str(Path(__file__).parents[1]),
        layout=str(known.store.folder),
        image=known.image,
        log=str(log),
        runc=shutil.which("runc"),
    )
    place = folder / "runtime"
    place.write_text(text)
    place.chmod(0o755)
    return place


def told(shim: Path) -> list[str]:
    return (shim.parent / "log").read_text().splitlines()


def test_at_the_moment_of_a_real_start_the_root_is_identified(storage, known, shim, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    options = (
        ("-v", f"{volume}:/data/volume")
        if isinstance(storage, Podman)
        else ("--mount", f"type=bind,src={volume},dst=/data/volume,options=rbind:ro")
    )
    assert storage.run(shim, "/bin/busybox", "cat", "/etc/conf", options=options) == "two"
    expected = [f"{kind_of(storage)} {known.image}"]
    assert told(shim) == expected
    if isinstance(storage, Podman):
        assert storage.start(shim) == "two"
        assert told(shim) == expected * 2


@pytest.mark.parametrize(("make", "driver"), [(Podman, "overlay"), (Containerd, "overlayfs")])
def test_many_layers_are_found_when_options_get_too_long_for_absolute_names(
    make, driver, tmp_path, tmp_path_factory
):
    layers = [BASE, *({f"layers/{number}": file(b"%d" % number)} for number in range(60))]
    many = Known(tmp_path / "layout", layers)
    shim = shim_for(many, tmp_path)
    made = make(tmp_path_factory.mktemp("s") / "s", driver)
    try:
        made.pull(many.store.folder, NAME)
        assert made.run(shim, "/bin/busybox", "cat", "/layers/59") == "59"
    finally:
        made.close()
    assert told(shim) == [f"overlay {many.image}"]
    assert "lowerdir=/" not in (tmp_path / "mounted").read_text()


SCRIPT = """
b=/bin/busybox
$b rm /tmp/su
$b rm -r /opaque && $b mkdir /opaque && echo again > /opaque/again
$b mkdir -p /srv/a/b && echo new > /srv/a/b/c
$b chmod 750 /tmp && $b chown 7:8 /etc/conf
$b ln -s nowhere /srv/link && $b ln /etc/conf /etc/conf-too
$b rm -r /run/pipe
"""


@pytest.mark.parametrize("driver", ["overlay", "vfs"])
def test_an_image_that_podman_made_itself_is_read_and_identified(
    driver, known, tmp_path, tmp_path_factory
):
    made = Podman(tmp_path_factory.mktemp("s") / "s", driver)
    try:
        made.pull(known.store.folder, NAME)
        layout = tmp_path / "layout"
        image = made.commit(SCRIPT, "example.org/made:1", layout)
        other = object.__new__(Known)
        other.catalog, other.cache = Catalog(Existing(layout)), Fingerprints()
        other.catalog.add(image)
        root = made.container()
        assert other.identify(root, strict=True).images == (image,)
        (place_of(root, "srv/a/b/c")).write_bytes(b"old")
        with pytest.raises(AlteredLayer, match="/srv/a/b/c"):
            other.identify(root)
    finally:
        made.close()


# Plain folders -----------------------------------------------------------------------------


def test_a_folder_for_plain_runc_is_identified_and_runs(tmp_path):
    plain = Known(tmp_path / "layout", [BASE])
    archive = tmp_path / "layer.tar"
    archive.write_bytes(tar(BASE))
    bundle = tmp_path / "bundle"
    root = unpacked(archive, bundle / "rootfs")
    os.setxattr(root / "bin/ping", "security.capability", CAPABILITY)  # tarfile leaves it out
    assert plain.identify(root).kind is RootKind.DIRECTORY
    command("runc", "spec", "--bundle", bundle)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/busybox", "cat", "/etc/conf"]}
    config["root"]["readonly"] = False
    (bundle / "config.json").write_text(json.dumps(config))
    said = command("runc", "--root", tmp_path / "runc", "run", "--bundle", bundle, "one")
    assert said == "one"
    assert plain.identify(root).images == (plain.image,)
    (root / "etc/conf").write_bytes(b"0ne")
    with pytest.raises(AlteredLayer, match="/etc/conf"):
        plain.identify(root)


def test_an_acis_root_file_system_is_identified(tmp_path):
    members = {"manifest": file(b"{}"), "rootfs/": folder()}
    members |= {f"rootfs/{path}": one for path, one in BASE.items() if path != "bin/true"}
    archive = tmp_path / "app.aci"
    archive.write_bytes(tar(members))
    catalog = Catalog(Store(tmp_path / "layout"))
    with archive.open("rb") as stream:
        image = catalog.add_aci(stream)
    root = unpacked(archive, tmp_path / "aci") / "rootfs"
    os.setxattr(root / "bin/ping", "security.capability", CAPABILITY)
    known = object.__new__(Known)
    known.catalog, known.cache = catalog, Fingerprints()
    assert known.identify(root).images == (image,)
    top, work, merged = (tmp_path / name for name in ("top", "work", "merged"))
    for place in (top, work, merged):
        place.mkdir()
    options = f"lowerdir={root},upperdir={top},workdir={work}"
    command("mount", "-t", "overlay", "overlay", "-o", options, merged)
    try:
        assert known.identify(merged, strict=True).images == (image,)
        (root / "etc/conf").write_bytes(b"0ne")
        with pytest.raises(AlteredLayer, match="/etc/conf"):
            known.identify(merged)
    finally:
        unmount_below(tmp_path)
