"""The demo's release, looked at from outside: reproducible, verifiable, accepted by others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from told_story import CACHE

from catena.lab.preparation import build_words
from catena.lab.tree import Cache
from catena.lab.workspace import Workspace

pytestmark = pytest.mark.boot


def test_building_again_gives_the_same_bytes(story, tmp_path):
    workspace = Workspace(story.home, Cache(CACHE))
    kernel = workspace.cache.kernel(lambda _: None)
    answer = story.catena(*build_words(workspace, kernel, tmp_path / "again"))
    assert answer.status == 0, answer.document
    for name in ("release.dsse.json", "uki.efi", "root.squashfs", "disk.img"):
        assert _same(story.home / "release" / name, tmp_path / "again" / name), name


def test_release_verifies_with_public_keys_alone(story):
    keys = story.home / "keys"
    answer = story.catena(
        *("os", "verify", story.home / "release"),
        *("--release-key", keys / "release.pub", "--db-certificate", keys / "db.crt"),
    )
    assert answer.status == 0, answer.document


def test_sbverify_accepts_the_image_that_firmware_accepted(story):
    certificate, image = story.home / "keys/db.crt", story.home / "release/uki.efi"
    done = subprocess.run(
        ["sbverify", "--cert", certificate, image], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Signature verification OK" in done.stdout


def _same(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            left, right = first.read(1 << 22), second.read(1 << 22)
            if left != right:
                return False
            if not left:
                return True
