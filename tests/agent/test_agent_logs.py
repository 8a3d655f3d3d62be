from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from catena.agent.logs import LogTooLong, MissingBootLog, read_boot_log, read_ima_log
from catena.errors import Unavailable
from catena.evidence import MAX_LOG


def test_boot_log_is_named_by_its_content(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"events")
    log = read_boot_log(path)
    assert (log.entry.kind, log.entry.size) == ("tcg2", 6)
    assert log.entry.sha256 == hashlib.sha256(b"events").hexdigest()


def test_file_that_reports_no_size_is_read_to_its_end():
    # Like the files of securityfs.
    assert Path("/proc/self/stat").stat().st_size == 0
    log = read_ima_log(Path("/proc/self/mountinfo"))
    assert log is not None
    assert log.content.endswith(b"\n")


@pytest.mark.parametrize("content", [None, b""])
def test_missing_or_empty_boot_log_is_an_error(tmp_path, content):
    path = tmp_path / "log"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MissingBootLog):
        read_boot_log(path)


def test_kernel_without_ima_has_no_such_log(tmp_path):
    assert read_ima_log(tmp_path / "absent") is None


def test_log_beyond_the_limit_is_refused(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(bytes(MAX_LOG))
    assert read_boot_log(path).entry.size == MAX_LOG
    path.write_bytes(bytes(MAX_LOG + 1))
    with pytest.raises(LogTooLong):
        read_boot_log(path)


def test_log_that_cannot_be_read_says_so(tmp_path):
    with pytest.raises(Unavailable, match="cannot read"):
        read_boot_log(tmp_path)
