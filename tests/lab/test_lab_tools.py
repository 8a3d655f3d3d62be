from __future__ import annotations

import os

import pytest

from catena.lab import tools
from catena.osimage.tool import MissingTool, Tool, ToolFailed
from living import await_that, mounts_below, processes_naming

SH = Tool("sh", "dash")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture(autouse=True)
def fresh_probe():
    tools._namespaces.cache_clear()
    yield
    tools._namespaces.cache_clear()


def test_output_is_text_whatever_was_printed():
    assert tools.run(SH, ("-c", r"printf 'a\377b'"), seconds=5) == "a\ufffdb"


def test_tool_runs_where_it_is_told(tmp_path):
    assert tools.run(SH, ("-c", "pwd"), seconds=5, cwd=tmp_path).strip() == str(tmp_path)


def test_missing_tool_is_missing_before_it_is_set_apart(monkeypatch):
    with pytest.raises(MissingTool, match="no-such-program"):
        tools.run_apart(Tool("no-such-program", "nothing"), (), seconds=5)


@needs_root
def test_mounts_and_processes_of_a_tool_set_apart_end_with_it(tmp_path):
    script = f"mount -t tmpfs none {tmp_path} && sh -c 'sleep 600' {tmp_path} & sleep 0.1; mount"
    told = tools.run_apart(SH, ("-c", script), seconds=10)
    assert f"on {tmp_path} type tmpfs" in told
    assert mounts_below(tmp_path) == []
    await_that(lambda: processes_naming(tmp_path) == {}, "end of what it started")


@needs_root
def test_tool_set_apart_that_takes_too_long_is_ended_with_its_mounts(tmp_path):
    script = f"mount -t tmpfs none {tmp_path}; sleep 600; : {tmp_path}"
    with pytest.raises(ToolFailed, match="sh took longer"):
        tools.run_apart(SH, ("-c", script), seconds=0.3)
    assert mounts_below(tmp_path) == []
    await_that(lambda: processes_naming(tmp_path) == {}, "end of the tool")


def test_tool_runs_without_namespaces_where_there_are_none(tmp_path, monkeypatch):
    """A container without privileges: whoever may not have namespaces may not mount either."""
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho unshare: Operation not permitted >&2; exit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert tools.run_apart(SH, ("-c", "echo done"), seconds=5) == "done\n"
