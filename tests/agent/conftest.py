"""A real TPM, a real cluster CA, and a stand-in for the trust service (``stand_in``)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from stand_in import DAY, ClusterCa, Refused, StandIn, https_server

from catena.agent.config import AgentConfig
from catena.tpm.device import Tpm, open_tpm
from swtpm import SoftwareTpm, software_tpm


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("machine")) as tpm:
        yield tpm


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("elsewhere"), certificates=False) as tpm:
        yield tpm


@pytest.fixture
def tpm(machine: SoftwareTpm) -> Iterator[Tpm]:
    with open_tpm(machine.tcti) as opened:
        yield opened


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder on a tmpfs, as the agent wants it."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder / "run"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def cluster_ca() -> ClusterCa:
    return ClusterCa(datetime.now(UTC) - DAY)


@pytest.fixture
def ca_file(cluster_ca: ClusterCa, tmp_path: Path) -> Path:
    path = tmp_path / "ca.crt"
    path.write_bytes(cluster_ca.certificate.public_bytes(Encoding.PEM))
    return path


@pytest.fixture
def service(cluster_ca: ClusterCa, tmp_path: Path) -> Iterator[StandIn]:
    stand_in = StandIn(ca=cluster_ca)

    def respond(path: str, body: bytes) -> tuple[int, bytes]:
        try:
            return 200, msgspec.json.encode(stand_in.answer(path, body))
        except Refused as refused:
            return refused.status, msgspec.json.encode(refused.body)

    context = cluster_ca.server_context(
        tmp_path, not_before=datetime.now(UTC) - DAY, lifetime=2 * DAY
    )
    stand_in.context = context
    with https_server(context, respond) as url:
        stand_in.url = url
        yield stand_in


@pytest.fixture
def config(
    machine: SoftwareTpm, service: StandIn, ca_file: Path, memory_folder: Path, tmp_path: Path
) -> AgentConfig:
    boot_log = tmp_path / "boot.log"
    boot_log.write_bytes(b"firmware event log")
    return AgentConfig(
        server=service.url,
        ca=ca_file,
        tcti=machine.tcti,
        runtime_dir=memory_folder,
        event_log=boot_log,
        ima_log=tmp_path / "ima.log",
        container_record=tmp_path / "record.cel",
        name_hint="rack-3",
    )
