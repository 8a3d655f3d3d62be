from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from standing import Standing, bundle_at


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
