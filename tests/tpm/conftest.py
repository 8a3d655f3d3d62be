"""One software TPM for the room; tests that break or extend theirs ask for ``own_tpm``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catena.tpm.device import Tpm, open_tpm
from swtpm import SoftwareTpm, software_tpm


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("machine")) as tpm:
        yield tpm


@pytest.fixture
def own_machine(tmp_path: Path) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path / "own", certificates=False) as tpm:
        yield tpm


@pytest.fixture
def tpm(machine: SoftwareTpm) -> Iterator[Tpm]:
    with open_tpm(machine.tcti) as opened:
        yield opened
