from __future__ import annotations

import dataclasses
import errno
import os

import pytest

from catena.errors import UsageError
from catena.formats import pe
from catena.formats.references import KeySet
from catena.keys.hierarchy import KeyName, open_folder
from catena.keys.signer import MissingKey
from catena.osimage import authenticode, predict, release, rootfs, tool
from catena.osimage.build import (
    KernelMismatch,
    MissingInput,
    ReleaseExists,
    ReleaseUnwritable,
    build,
)
from catena.osimage.modules import MissingModule
from catena.osimage.predict import UnknownStub
from catena.osimage.release import UnusableCommandLine, UnusableName
from catena.osimage.tool import MissingTool


def changed(recipe, **fields):
    return dataclasses.replace(recipe, **fields)


def test_release_has_its_four_files_open_to_readers(built):
    folder, _ = built
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert set(modes) == {"release.dsse.json", "uki.efi", "root.squashfs", "disk.img"}
    assert all(mode & 0o444 == 0o444 for mode in modes.values())
    assert folder.stat().st_mode & 0o777 == 0o755


def test_manifest_describes_the_image(built, keys):
    folder, manifest = built
    image = pe.parse((folder / release.UKI).read_bytes())
    authenticode.verify(image, [keys.certificate(KeyName.DB)])
    assert (manifest.name, manifest.version, manifest.security_version) == ("edge", "1.0", 3)
    assert manifest.kernel == "6.1.0-test"
    assert manifest.uki.stub == "systemd-stub 252.39-1"
    root = manifest.root
    parameter = f"catena.root={root.root_hash},{root.salt},{root.data_blocks}"
    assert manifest.command_line == f"{release.DEFAULT_COMMAND_LINE} {parameter}"
    assert predict.section_content(image, ".cmdline").decode() == manifest.command_line
    assert predict.pcr_values(manifest.events) == manifest.pcrs


def test_same_recipe_gives_the_same_bytes(built, recipe, keys, tmp_path):
    folder, manifest = built
    assert build(recipe, keys, tmp_path / "again") == manifest
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_versions_differ_in_every_part(built, recipe, keys, tmp_path):
    _, manifest = built
    other = build(changed(recipe, version="1.1"), keys, tmp_path / "other")
    assert other.root.root_hash != manifest.root.root_hash
    assert other.uki.authenticode != manifest.uki.authenticode
    for pcr in ("4", "5", "9", "11"):
        assert other.pcrs["sha256"][pcr] != manifest.pcrs["sha256"][pcr]


def test_key_set_adds_pcr_7(built, recipe, keys, tmp_path):
    pcrs = {"sha256": {"7": "ab" * 32}, "sha384": {"7": "cd" * 48}}
    keyset = KeySet(name="k", version="1", owner="o", certificates={}, events=(), pcrs=pcrs)
    made = build(changed(recipe, keyset=keyset, revokes=("edge-0.9",)), keys, tmp_path / "r")
    assert made.pcrs["sha256"] == {**built[1].pcrs["sha256"], "7": "ab" * 32}
    assert made.revokes == ("edge-0.9",)


def test_existing_output_is_never_touched(recipe, keys, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ReleaseExists):
        build(recipe, keys, tmp_path / "out")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ReleaseExists):
        build(recipe, keys, tmp_path / "link")


@pytest.mark.parametrize("field", ["name", "version"])
@pytest.mark.parametrize("text", ["", "../up", "a b", "-a", "É", "x" * 64, "a\n"])
def test_unclear_names_are_refused(recipe, keys, tmp_path, field, text):
    with pytest.raises(UnusableName):
        build(changed(recipe, **{field: text}), keys, tmp_path / "out")


@pytest.mark.parametrize("line", ["a\nb", "quiet\0", "naïve", "x catena.root=0,0,0"])
def test_command_lines_that_contradict_the_release_are_refused(built, recipe, keys, tmp_path, line):
    with pytest.raises(UnusableCommandLine):
        build(changed(recipe, command_line=line), keys, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_negative_security_version_is_refused(recipe, keys, tmp_path):
    with pytest.raises(UsageError, match="not negative"):
        build(changed(recipe, security_version=-1), keys, tmp_path / "out")


@pytest.mark.parametrize("field", ["kernel", "stub", "modules", "tree"])
def test_missing_inputs_are_named(recipe, keys, tmp_path, field):
    with pytest.raises(MissingInput) as refused:
        build(changed(recipe, **{field: tmp_path / "none"}), keys, tmp_path / "out")
    assert refused.value.got == str(tmp_path / "none")


def test_modules_of_another_kernel_are_refused(recipe, keys, tmp_path):
    other = tmp_path / "6.2.0"
    other.mkdir()
    with pytest.raises(KernelMismatch):
        build(changed(recipe, modules=other), keys, tmp_path / "out")


def test_missing_tools_stop_before_work_starts(recipe, keys, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "_SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="mksquashfs"):
        build(recipe, keys, tmp_path / "out")


@pytest.mark.parametrize("fault", ["module", "stub", "key"])
def test_failed_build_leaves_nothing(built, recipe, keys, tmp_path, fault):
    (tmp_path / "stub").write_bytes(recipe.stub.read_bytes().replace(b"stub 252", b"stub 999"))
    cases = {
        "module": (changed(recipe, module_names=("nonesuch",)), keys, MissingModule),
        "stub": (changed(recipe, stub=tmp_path / "stub"), keys, UnknownStub),
        "key": (recipe, open_folder(_folder_without_release_key(keys, tmp_path)), MissingKey),
    }
    before = sorted(tmp_path.iterdir())
    chosen, folder, error = cases[fault]
    with pytest.raises(error):
        build(chosen, folder, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def _folder_without_release_key(keys, tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("owner.guid", "db.key", "db.crt"):
        (folder / name).write_bytes((keys.path / name).read_bytes())
        (folder / name).chmod(0o600)
    return folder


def test_unwritable_place_is_reported(recipe, keys, tmp_path):
    with pytest.raises(ReleaseUnwritable):
        build(recipe, keys, tmp_path / "no/out")


def test_full_disk_is_reported_and_leaves_nothing(built, recipe, keys, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rootfs, "build", full)
    with pytest.raises(ReleaseUnwritable, match="no space left"):
        build(recipe, keys, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
