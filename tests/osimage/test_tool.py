from __future__ import annotations

import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from catena.errors import ExitCode
from catena.osimage import tool
from catena.osimage.tool import MCOPY, MKSQUASHFS, MMD, ZSTD, MissingTool, Tool, ToolFailed
from living import assert_gone, await_that


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


def test_missing_tools_are_named_and_one_command_installs_them(bare_machine):
    with pytest.raises(MissingTool) as refused:
        tool.require((MKSQUASHFS, MCOPY, MMD))
    assert refused.value.message == "cannot find mksquashfs, mcopy, mmd"
    assert refused.value.remedy == ("apt-get install --no-install-recommends mtools squashfs-tools")
    assert refused.value.exit_code is ExitCode.INTERNAL
    with pytest.raises(MissingTool, match="cannot find mcopy"):
        tool.run(MCOPY, ())


def test_file_at_a_fixed_place_is_found_or_missing(tmp_path):
    there = tmp_path / "firmware.fd"
    firmware = Tool(str(there), "ovmf")
    with pytest.raises(MissingTool) as refused:
        firmware.path()
    assert refused.value.remedy.endswith(" ovmf")
    there.touch()
    assert firmware.path() == there


def test_program_without_permission_to_run_is_missing(bare_machine):
    (bare_machine / "mmd").write_text("#!/bin/sh\n")
    with pytest.raises(MissingTool):
        MMD.path()


def test_failure_carries_the_tools_last_words(bare_machine):
    install(bare_machine, "mmd", "printf 'disk\\033 full' >&2; exit 3")
    with pytest.raises(ToolFailed, match="mmd failed with 3") as failed:
        tool.run(MMD, ())
    assert failed.value.got == r"'disk\x1b full'"


def test_words_on_standard_output_count_when_there_are_no_others(bare_machine):
    install(bare_machine, "mmd", "printf 'no room'; exit 1")
    with pytest.raises(ToolFailed) as failed:
        tool.run(MMD, ())
    assert failed.value.got == "'no room'"


def test_endless_words_are_cut(bare_machine):
    install(bare_machine, "mmd", "/usr/bin/yes no | /usr/bin/head -c 100000 >&2; exit 1")
    with pytest.raises(ToolFailed) as failed:
        tool.run(MMD, ())
    assert len(str(failed.value)) < 2000


def test_date_is_only_what_the_caller_fixed(bare_machine, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "99")
    install(bare_machine, "zstd", 'printf "%s" "$SOURCE_DATE_EPOCH$LC_ALL$TZ"')
    assert tool.run(ZSTD, ()) == b"CUTC"
    install(bare_machine, "mmd", 'test "$SOURCE_DATE_EPOCH" = 5')
    tool.run(MMD, (), epoch=5)


def test_content_passes_through(bare_machine):
    install(bare_machine, "zstd", "exec /bin/cat")
    assert tool.run(ZSTD, (), content=b"\0\xff") == b"\0\xff"


def test_tool_that_takes_too_long_is_ended_with_all_it_started(bare_machine):
    pids = bare_machine / "pids"
    install(bare_machine, "mmd", f"/bin/sleep 600 & echo $$ $! > {pids}; wait")
    with pytest.raises(ToolFailed, match="mmd took longer than 1 s"):
        tool.run(MMD, (), seconds=0.6)
    assert_gone(written(pids))


def test_interrupted_caller_leaves_nothing_running(bare_machine):
    pids = bare_machine / "pids"
    # It ignores the first request, as a program may.
    install(bare_machine, "mmd", f"trap '' TERM; /bin/sleep 600 & echo $$ $! > {pids}; wait; wait")
    main = threading.main_thread().ident

    def interrupt():
        written(pids)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        tool.run(MMD, ())
    assert_gone(written(pids))


def test_tool_dies_with_a_caller_that_is_killed(bare_machine):
    pid = bare_machine / "pid"
    install(bare_machine, "mmd", f"echo $$ > {pid}; exec /bin/sleep 600")
    code = "from catena.osimage import tool; tool.run(tool.MMD, ())"
    with subprocess.Popen([sys.executable, "-c", code]) as caller:
        (running,) = written(pid)
        caller.kill()
    assert_gone([running])


def written(path: Path) -> list[int]:
    """The process ids in a file, once they are there."""
    await_that(lambda: path.exists() and path.read_text().endswith("\n"), f"{path} written")
    return [int(word) for word in path.read_text().split()]
