from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from node import Node
from standing import Standing, bundle_at

from swtpm import SoftwareTpm, manufacture


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder with a short path: a socket's may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="gate-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def standing(room: Path) -> Iterator[Standing]:
    gate = Standing(room)
    yield gate
    gate.clean()


@pytest.fixture
def bundle(room: Path) -> Path:
    """A bundle whose process leaves a file that proves that it ran."""
    return bundle_at(room / "bundle", "/bin/touch", "/ran")


@pytest.fixture
def ran(bundle: Path):
    """Whether the bundle's process has run."""
    return (bundle / "rootfs" / "ran").exists


@pytest.fixture(scope="session")
def chip(tmp_path_factory: pytest.TempPathFactory) -> SoftwareTpm:
    """A TPM that is made once and switched off."""
    return manufacture(tmp_path_factory.mktemp("tpm"), certificates=False)


@pytest.fixture
def node(room: Path, chip: SoftwareTpm) -> Iterator[Node]:
    """A node that has just been switched on."""
    chip.start()
    try:
        made = Node(room, chip)
        yield made
        made.clean()
    finally:
        chip.stop()
