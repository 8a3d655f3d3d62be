from __future__ import annotations

import shutil
import subprocess
import uuid

import pytest

from catena.osimage import verity

SALT = bytes(range(32))
IDENTITY = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


def image_of(tmp_path, blocks):
    path = tmp_path / "image"
    path.write_bytes(b"".join(n.to_bytes(4096, "big") for n in range(blocks)))
    return path


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 300, 128 * 128 + 1])
def test_tree_equals_that_of_veritysetup(tmp_path, blocks):
    veritysetup = shutil.which("veritysetup", path="/usr/sbin:/sbin:/usr/bin")
    if veritysetup is None:
        pytest.skip("veritysetup is not installed")
    image = image_of(tmp_path, blocks)
    made = verity.build(image, salt=SALT, identity=IDENTITY)
    reference = tmp_path / "reference"
    options = ["--salt", SALT.hex(), "--uuid", str(IDENTITY)]
    result = subprocess.run(
        [veritysetup, "format", image, reference, *options],
        check=True,
        capture_output=True,
        text=True,
    )
    assert reference.read_bytes() == made.partition
    assert made.root.root_hash in result.stdout
    assert made.root.data_blocks == blocks


def test_each_bit_of_the_image_moves_the_root_hash(tmp_path):
    image = image_of(tmp_path, 130)
    before = verity.build(image, salt=SALT, identity=IDENTITY).root.root_hash
    content = bytearray(image.read_bytes())
    for at in (0, 4095, 4096 * 64 + 7, len(content) - 1):
        content[at] ^= 1
        image.write_bytes(content)
        assert verity.build(image, salt=SALT, identity=IDENTITY).root.root_hash != before
        content[at] ^= 1


def test_releases_have_their_own_salts():
    salts = {
        verity.release_salt(name, version, digest)
        for name in ("a", "b")
        for version in ("1", "2")
        for digest in (b"x", b"y")
    }
    assert len(salts) == 8


def test_root_hash_names_both_partitions():
    data, tree = verity.partition_guids("00112233445566778899aabbccddeeff" + "f" * 32)
    assert str(data) == "00112233-4455-6677-8899-aabbccddeeff"
    assert tree == uuid.UUID(int=2**128 - 1)


def test_empty_image_is_refused(tmp_path):
    with pytest.raises(verity.EmptyImage):
        verity.build(image_of(tmp_path, 0), salt=SALT, identity=IDENTITY)
