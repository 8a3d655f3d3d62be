"""Mount tables: which folders an overlay consists of, whatever their names contain."""

from __future__ import annotations

from pathlib import Path

import pytest

from catena.containers.rootfs import walk
from catena.containers.rootfs.mounts import check_folder, mount_of, overlay_of, parse_mounts
from catena.containers.rootfs.refusals import ForeignMount
from catena.errors import FormatError

HEAD = "48 27 0:39 / /run/c/rootfs rw,relatime shared:1 - overlay overlay rw"


def overlay(options: str, head: str = HEAD):
    return overlay_of(parse_mounts(f"{head},{options}\n").mount(int(head.split(maxsplit=1)[0])))


def names(found):
    return [str(one) for one in found.lowers]


def test_lower_folders_come_bottom_first():
    found = overlay("lowerdir=/s/3/fs:/s/2/fs:/s/1/fs,upperdir=/s/4/fs,workdir=/s/4/work")
    assert names(found) == ["/s/1/fs", "/s/2/fs", "/s/3/fs"]
    assert (found.upper, found.marks) == (Path("/s/4/fs"), "trusted.overlay.")


def test_an_overlay_may_have_no_upper_folder():
    assert overlay("lowerdir=/b:/a").upper is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"/a\134:b:/c", ["/c", "/a:b"]),
        (r"/a\134\134b", [r"/a\b"]),
        (r"/a\040b\054c", ["/a b,c"]),
        (r"/a\011b\012c", ["/a\tb\nc"]),
    ],
)
def test_escaped_names_are_what_they_were(written, meant):
    assert names(overlay(f"lowerdir={written}")) == meant


def test_the_newer_form_names_each_folder_by_itself():
    assert names(overlay("lowerdir+=/b:c,lowerdir+=/a")) == ["/a", "/b:c"]


def test_relative_folders_of_containerd_start_beside_the_upper_one():
    found = overlay("lowerdir=2/fs:1/fs,upperdir=/var/snapshots/3/fs,workdir=/var/snapshots/3/work")
    assert names(found) == ["/var/snapshots/1/fs", "/var/snapshots/2/fs"]


def test_relative_folders_of_podman_start_above_the_mount():
    head = "49 42 0:40 / /var/overlay/52ab/merged rw - overlay overlay rw"
    found = overlay("lowerdir=l/AB:l/CD,upperdir=52ab/diff,workdir=52ab/work", head)
    assert names(found) == ["/var/overlay/l/CD", "/var/overlay/l/AB"]
    assert found.upper == Path("/var/overlay/52ab/diff")


def test_unprivileged_overlays_have_other_marks():
    assert overlay("lowerdir=/b:/a,userxattr").marks == "user.overlay."


@pytest.mark.parametrize(
    "options",
    [
        "upperdir=/u",
        "lowerdir=/a::/data",
        "lowerdir=/a:",
        "lowerdir+=/a,datadir+=/data",
        "lowerdir=/a,lowerdir=/b",
        "lowerdir=/a,lowerdir+=/b",
        "lowerdir=" + ":".join(f"/{number}" for number in range(513)),
    ],
)
def test_forms_that_no_runtime_uses_are_refused(options):
    with pytest.raises(ForeignMount):
        overlay(options)


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "48 27 0:39 / /p rw",
        "48 27 0:39 / /p - overlay overlay rw",
        "a 27 0:39 / /p rw - overlay overlay rw",
        "48 27 0:39 / /p rw - overlay overlay",
        "48 27 0:39 / /p rw - overlay overlay rw more",
    ],
)
def test_malformed_tables_are_refused(line):
    with pytest.raises(FormatError):
        parse_mounts(line).mount(48)


def test_a_table_has_a_bound(monkeypatch):
    monkeypatch.setattr("catena.containers.rootfs.mounts.MAX_MOUNTINFO", 3)
    with pytest.raises(FormatError, match="too long"):
        parse_mounts("1234")


def table(*points, kind="ext4", options="rw"):
    return parse_mounts(
        "\n".join(
            f"{number} 1 0:1 / {point} {options} - {kind} none rw"
            for number, point in enumerate(points, start=1)
        )
    )


def test_places_inside_are_found_and_places_beside_are_not():
    mounts = table("/", "/a", "/a/b/c", "/ab", "/b")
    assert mounts.first_inside("/a") == "/a/b/c"
    assert mounts.first_inside("/a/b/c") is None
    assert mounts.first_inside("/ab") is None
    assert mounts.first_inside("/") == "/a"
    assert mounts.first_inside("/z") is None


def own_number(descriptor):
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    return next(line.split()[1] for line in text.splitlines() if line.startswith("mnt_id"))


def on(descriptor, kind="ext4", options="rw", more=""):
    number = own_number(descriptor)
    return parse_mounts(f"{number} 1 0:1 / / {options} - {kind} none rw\n{more}")


def test_a_folder_on_a_local_file_system_is_accepted(tmp_path):
    with walk.opened(tmp_path) as descriptor:
        check_folder(descriptor, on(descriptor))
        check_folder(descriptor, parse_mounts(Path("/proc/self/mountinfo").read_text()))
        assert mount_of(descriptor, on(descriptor)).type == "ext4"


@pytest.mark.parametrize("kind", ["nfs4", "fuse.fuse-overlayfs", "9p", "virtiofs", "proc"])
def test_files_that_something_else_answers_for_are_refused(tmp_path, kind):
    with walk.opened(tmp_path) as descriptor, pytest.raises(ForeignMount, match="local"):
        check_folder(descriptor, on(descriptor, kind))


def test_a_mount_that_changes_owners_is_refused(tmp_path):
    with walk.opened(tmp_path) as descriptor, pytest.raises(ForeignMount, match="owners"):
        check_folder(descriptor, on(descriptor, options="rw,idmapped"))


def test_a_mount_inside_is_refused(tmp_path):
    inside = f"7 1 0:1 / {tmp_path}/usr rw - tmpfs none rw\n"
    with walk.opened(tmp_path) as descriptor, pytest.raises(ForeignMount, match="inside"):
        check_folder(descriptor, on(descriptor, more=inside))


def test_a_mount_that_is_not_listed_is_refused(tmp_path):
    with walk.opened(tmp_path) as descriptor, pytest.raises(ForeignMount, match="cannot see"):
        mount_of(descriptor, table("/"))
