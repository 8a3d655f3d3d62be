"""Attacks on the node's side by other users of the machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catena.agent import status
from catena.agent.delivery import Delivery, ExposedRuntime
from catena.agent.status import AgentStatus
from catena.errors import Unavailable


@pytest.fixture
def memory() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o720])
def test_a_runtime_directory_that_others_may_write_to_is_refused(memory, mode):
    runtime = memory / "catena"
    runtime.mkdir()
    runtime.chmod(mode)
    with pytest.raises(ExposedRuntime):
        Delivery(runtime).prepare()


def test_a_link_in_the_place_of_the_runtime_directory_is_refused(memory):
    (memory / "elsewhere").mkdir(mode=0o700)
    (memory / "catena").symlink_to(memory / "elsewhere")
    with pytest.raises(ExposedRuntime):
        Delivery(memory / "catena").prepare()


def test_a_runtime_directory_that_the_agent_makes_is_its_own(memory):
    Delivery(memory / "catena").prepare()
    assert (memory / "catena").stat().st_mode & 0o777 == 0o700


def test_a_status_file_never_follows_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / ".status.json").symlink_to(victim)
    with pytest.raises(Unavailable):
        status.write(tmp_path, AgentStatus(updated_at=datetime.now(UTC)))
    assert victim.read_text() == "untouched"
