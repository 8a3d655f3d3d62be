"""One software TPM for the room; every test that asks for it finds it just powered on."""

from __future__ import annotations

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
