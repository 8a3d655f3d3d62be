from __future__ import annotations

import re
import shutil
import stat
import subprocess
import uuid
from importlib.resources import files

import pytest

from catena.osimage import initrd
from catena.osimage.modules import MissingModule
from catena.osimage.tree import NotInTree, Tree
from small_images import make_linked_tree, make_tree, read_cpio

SCRIPT = files("catena.osimage") / "init.sh"


@pytest.fixture(scope="module")
def packed(tmp_path_factory, modules):
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    linked = Tree(make_linked_tree(tmp_path_factory.mktemp("linked")))
    return initrd.build(linked, modules, ("disk", "net"))


@pytest.fixture(scope="module")
def content(packed):
    unpacked = subprocess.run(["zstd", "-dc"], check=True, input=packed, capture_output=True)
    return read_cpio(unpacked.stdout)


def test_initrd_has_the_script_as_its_only_init(content):
    assert content["init"][2] == SCRIPT.read_bytes()
    assert content["init"][0] & 0o111
    assert [name for name in content if name.endswith("init")] == ["init"]


def test_modules_are_listed_in_load_order(content):
    assert content["modules/order"][2] == b"core_lib.ko\nbus.ko\ndisk.ko\nnet.ko\n"
    assert {"modules/core_lib.ko", "modules/disk.ko"} <= set(content)


def test_programs_find_their_libraries(content):
    assert stat.S_ISLNK(content["lib64"][0])
    assert content["usr/lib64/ld-linux-x86-64.so.2"][2].startswith(b"\x7fELF")
    assert content["usr/lib/x86_64-linux-gnu/libc.so.6"][2].startswith(b"\x7fELF")
    assert content["usr/bin/dmsetup"][2].startswith(b"\x7fELF")


def test_every_program_of_the_script_is_there(content):
    applets = {name.removeprefix("usr/bin/") for name in content if name.startswith("usr/bin/")}
    used = {"cat", "cut", "dd", "hexdump", "insmod", "mount", "poweroff", "sed", "sleep"}
    assert used | {"sh", "switch_root", "busybox", "dmsetup"} == applets


def test_same_input_gives_the_same_bytes(tree, tmp_path, modules):
    again = Tree(make_tree(tmp_path / "tree"))
    assert initrd.build(again, modules, ("net",)) == initrd.build(tree, modules, ("net",))


def test_tree_without_dmsetup_is_refused(tmp_path, modules):
    poor = Tree(make_tree(tmp_path / "tree"))
    (poor.root / "usr/sbin/dmsetup").unlink()
    with pytest.raises(NotInTree, match="dmsetup"):
        initrd.build(poor, modules, ("disk",))


def test_tree_without_a_library_is_refused(tmp_path, modules):
    poor = Tree(make_linked_tree(tmp_path / "tree"))
    (poor.root / "usr/lib/x86_64-linux-gnu/libc.so.6").unlink()
    with pytest.raises(NotInTree, match="libc"):
        initrd.build(poor, modules, ("disk",))


def test_unknown_module_is_refused(tree, modules):
    with pytest.raises(MissingModule):
        initrd.build(tree, modules, ("nonesuch",))


def run_in_shell(text):
    """Run functions of the script, up to its first mount, in the shell it will run in."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    head = SCRIPT.read_text().split("mount -t proc")[0].replace("trap 'fail", ": '")
    return subprocess.run(
        [busybox, "sh", "-c", head + text], check=False, capture_output=True, text=True
    )


def test_script_is_valid_shell():
    assert subprocess.run(["sh", "-n"], check=False, input=SCRIPT.read_bytes()).returncode == 0


def test_script_knows_the_byte_order_of_guids():
    guid = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
    assert run_in_shell(f"guid_on_disk {guid.hex}").stdout.strip() == guid.bytes_le.hex()


@pytest.mark.parametrize(
    ("text", "accepted"),
    [("00ff", True), ("", False), ("0x", False), ("AA", False), ("a b", False)],
)
def test_script_takes_only_hex(text, accepted):
    assert (run_in_shell(f'only_hex "{text}"').returncode == 0) is accepted


def test_script_has_no_way_into_a_shell():
    text = SCRIPT.read_text()
    assert "exec switch_root /sysroot /sbin/init\n" in text
    assert len(re.findall(r"\bexec ", text)) == 1
    assert "/bin/sh" not in text.removeprefix("#!/bin/sh")
    mounts = [line for line in text.splitlines() if line.strip().startswith("mount ")]
    assert len(mounts) >= 8
    assert all("|| fail" in line or line.endswith("||") for line in mounts)
