"""One software TPM for the room; every test that asks for it finds it just powered on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swtpm import SoftwareTpm, software_tpm


@pytest.fixture(scope="session")
def _machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("machine"), certificates=False) as tpm:
        yield tpm


@pytest.fixture
def machine(_machine: SoftwareTpm) -> SoftwareTpm:
    _machine.power_cycle()
    return _machine


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state/record.cel"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few events."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("mounting needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
