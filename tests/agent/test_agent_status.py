from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta

import pytest

from catena.agent import status
from catena.agent.status import AgentStatus, NoStatus
from catena.errors import ExitCode, FormatError, Unavailable

NOW = datetime(2031, 2, 3, tzinfo=UTC)
LATER, EARLIER = NOW + timedelta(minutes=5), NOW - timedelta(minutes=5)


def test_status_is_read_back(tmp_path):
    written = AgentStatus(updated_at=NOW, node_id="ab" * 32, state="trusted", secrets={"disk": 1})
    status.write(tmp_path, written)
    assert status.read(tmp_path) == written
    assert stat.S_IMODE((tmp_path / "status.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"verdict": "trusted", "state": "trusted", "certificate_until": LATER}, ExitCode.OK),
        ({"verdict": "trusted", "state": "trusted", "certificate_until": EARLIER}, ExitCode.STALE),
        ({"verdict": "trusted", "state": "trusted"}, ExitCode.STALE),
        ({"verdict": "untrusted", "state": "untrusted"}, ExitCode.UNTRUSTED),
        ({"verdict": "trusted", "state": "untrusted"}, ExitCode.UNTRUSTED),
        ({"verdict": "untrusted", "state": "pending"}, ExitCode.UNKNOWN_NODE),
        ({}, ExitCode.STALE),
    ],
)
def test_only_a_current_certificate_means_trusted(fields, code):
    assert AgentStatus(updated_at=NOW, **fields).exit_code(NOW) is code


def test_agent_that_never_ran_has_no_status(tmp_path):
    with pytest.raises(NoStatus):
        status.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_damaged_status_is_malformed(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)
    with pytest.raises(FormatError):
        status.read(tmp_path)


def test_folder_that_is_gone_says_so(tmp_path):
    with pytest.raises(Unavailable):
        status.write(tmp_path / "gone", AgentStatus(updated_at=NOW))
    (tmp_path / "status.json").mkdir()
    with pytest.raises(Unavailable):
        status.read(tmp_path)
