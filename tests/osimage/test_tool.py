from __future__ import annotations

import stat

import pytest

from catena.osimage import tool
from catena.osimage.tool import MissingTool, Tool, ToolFailed


@pytest.fixture
def bare_machine(monkeypatch, tmp_path):
    """A machine with nothing installed but what the test puts there."""
    monkeypatch.setattr(tool, "_SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_missing_tools_are_named_with_their_packages(bare_machine):
    with pytest.raises(MissingTool) as refused:
        tool.require((Tool.MKSQUASHFS, Tool.MCOPY, Tool.MMD))
    assert refused.value.message == "cannot find mksquashfs, mcopy, mmd"
    assert refused.value.expected == "apt-get install mtools squashfs-tools"
    with pytest.raises(MissingTool):
        tool.run(Tool.MCOPY, ())


def test_failure_carries_the_tools_last_words(bare_machine):
    install(bare_machine, "mmd", "printf 'disk\\033 full' >&2; exit 3")
    with pytest.raises(ToolFailed, match="mmd failed with 3") as failed:
        tool.run(Tool.MMD, ())
    assert failed.value.got == r"'disk\x1b full'"


def test_date_is_only_what_the_caller_fixed(bare_machine, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "99")
    install(bare_machine, "zstd", 'printf "%s" "$SOURCE_DATE_EPOCH$LC_ALL$TZ"')
    assert tool.run_filter(Tool.ZSTD, (), b"") == b"CUTC"
    install(bare_machine, "mmd", 'test "$SOURCE_DATE_EPOCH" = 5')
    tool.run(Tool.MMD, (), epoch=5)


def test_filter_passes_bytes_through(bare_machine):
    install(bare_machine, "zstd", "exec /bin/cat")
    assert tool.run_filter(Tool.ZSTD, (), b"\0\xff") == b"\0\xff"
