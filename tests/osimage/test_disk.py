from __future__ import annotations

import shutil
import subprocess
import uuid

import pytest

from catena.formats import gpt
from catena.osimage import disk, release, verity

PARTITIONS = (
    (disk.ESP_TYPE, "esp"),
    (disk.ROOT_X86_64_TYPE, "root"),
    (disk.ROOT_VERITY_X86_64_TYPE, "root-verity"),
)


@pytest.fixture(scope="module")
def image(built):
    return (built[0] / release.DISK).read_bytes()


@pytest.fixture(scope="module")
def table(image):
    return gpt.parse(image[: gpt.FIRST_USABLE * gpt.SECTOR])


def content(image, partition):
    return image[partition.first_lba * gpt.SECTOR : (partition.last_lba + 1) * gpt.SECTOR]


def test_partitions_have_discoverable_types_and_names(table, built):
    assert tuple((one.type_guid, one.name) for one in table.partitions) == PARTITIONS
    root_guid, hash_guid = verity.partition_guids(built[1].root.root_hash)
    assert (table.partitions[1].guid, table.partitions[2].guid) == (root_guid, hash_guid)
    assert all(one.first_lba % 2048 == 0 for one in table.partitions)


def test_partitions_hold_root_and_hash_tree(image, table, built):
    folder, manifest = built
    root = (folder / release.ROOT_IMAGE).read_bytes()
    assert content(image, table.partitions[1])[: len(root)] == root
    tree = verity.build(
        folder / release.ROOT_IMAGE,
        salt=bytes.fromhex(manifest.root.salt),
        identity=uuid.UUID(int=0),
    )
    stored = content(image, table.partitions[2])
    assert stored[4096 : len(tree.partition)] == tree.partition[4096:]
    assert stored[:8] == b"verity\0\0"


def test_uki_lies_where_firmware_looks(image, table, built, tmp_path):
    esp = tmp_path / "esp.img"
    esp.write_bytes(content(image, table.partitions[0]))
    command = ["mcopy", "-i", esp, "::/EFI/BOOT/BOOTX64.EFI", tmp_path / "uki"]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "uki").read_bytes() == (built[0] / release.UKI).read_bytes()
    fsck = shutil.which("fsck.vfat", path="/usr/sbin:/sbin")
    if fsck is not None:
        subprocess.run([fsck, "-n", esp], check=True, capture_output=True)


def test_backup_table_ends_the_disk(image, table):
    assert len(image) == table.sectors * gpt.SECTOR
    assert image.endswith(table.encode_end())


def test_image_is_sparse(built):
    status = (built[0] / release.DISK).stat()
    assert status.st_blocks * 512 < status.st_size / 2


def test_derived_guids_are_valid_and_differ():
    made = {disk.derived_guid(identity, use) for identity in (b"a", b"b") for use in ("x", "y")}
    assert len(made) == 4
    assert {(one.version, one.variant) for one in made} == {(8, uuid.RFC_4122)}
