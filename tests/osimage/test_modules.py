from __future__ import annotations

import lzma

import pytest

from catena.errors import FormatError
from catena.osimage.modules import MissingModule, in_load_order
from small_images import make_modules, small_module


def names(folder, *wanted):
    return [module.name for module in in_load_order(folder, wanted)]


def test_dependencies_come_first_and_once(modules):
    assert names(modules, "net", "disk", "bus") == ["net", "core_lib", "bus", "disk"]


def test_hyphen_equals_underscore(modules):
    assert names(modules, "core-lib") == names(modules, "core_lib") == ["core_lib"]


def test_builtin_modules_are_left_out(modules):
    assert names(modules, "tpm", "net") == ["net"]


def test_missing_module_is_named(modules):
    with pytest.raises(MissingModule, match="nonesuch"):
        names(modules, "nonesuch")


def test_missing_dependency_is_named(tmp_path):
    folder = make_modules(tmp_path)
    (folder / "kernel/drivers/bus.ko").unlink()
    with pytest.raises(MissingModule, match="bus"):
        names(folder, "disk")


def test_compressed_modules_are_unpacked(tmp_path):
    folder = make_modules(tmp_path)
    plain = folder / "kernel/drivers/net.ko"
    content = plain.read_bytes()
    plain.with_suffix(".ko.xz").write_bytes(lzma.compress(content))
    plain.unlink()
    assert in_load_order(folder, ["net"])[0].content == content


def test_damaged_and_unknown_compression_is_refused(tmp_path):
    folder = make_modules(tmp_path)
    drivers = folder / "kernel/drivers"
    (drivers / "odd.ko.xz").write_bytes(b"not xz")
    (drivers / "strange.ko.zst").write_bytes(b"")
    with pytest.raises(FormatError):
        names(folder, "odd")
    with pytest.raises(MissingModule):
        names(folder, "strange")


def test_circular_dependencies_are_refused(tmp_path):
    folder = make_modules(tmp_path)
    for name, other in (("a", "b"), ("b", "a")):
        (folder / f"kernel/{name}.ko").write_bytes(small_module(name, other))
    with pytest.raises(FormatError, match="depends on itself"):
        names(folder, "a")
