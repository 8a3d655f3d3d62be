"""Full disks and forbidden folders: a clear error, no half-made parts, no mount, no process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM

import pytest

from catena.lab.tree import Cache
from living import await_that, mounts_below, processes_naming

CATENA = [sys.executable, "-m", "catena.cli.main"]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A debootstrap that does in a moment what is said; its last argument is the new root."""

    def install(script: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        path = folder / "debootstrap"
        path.write_text(f'#!/bin/sh\nfor root in "$@"; do :; done\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return install


def up_with_small_disk(tmp_path, size: str, *words: str) -> tuple[int, dict, list[str]]:
    """`lab up` where ``tmp_path/disk`` has ``size`` of space; exit code, error, files left."""
    place = tmp_path / "disk"
    place.mkdir()
    command = [*CATENA, "lab", "up", *words, "-o", "json"]
    script = (
        f"mount -t tmpfs -o size={size} none {place} && shift && "
        f'"$@" > {tmp_path}/answer; status=$?; (cd {place} && find .) > {tmp_path}/left; exit $status'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", "sh", *command],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr
    error = json.loads((tmp_path / "answer").read_bytes())["error"]
    return done.returncode, error, sorted((tmp_path / "left").read_text().split())


@needs_root
def test_lab_folder_without_room_for_keys(tmp_path, nothing_left):
    folder = str(tmp_path / "disk/lab")
    status, error, left = up_with_small_disk(tmp_path, "16k", "--dir", folder)
    assert (status, error["code"]) == (1, "key-unwritable")
    assert "No space left on device" in error["message"]
    assert error["remedy"]
    assert left == [".", "./lab", "./lab/.catena-lab"]


@needs_root
def test_lab_folder_without_any_room(tmp_path, nothing_left):
    folder = str(tmp_path / "disk/lab")
    status, error, _ = up_with_small_disk(tmp_path, "4k,nr_inodes=1", "--dir", folder)
    assert (status, error["code"]) == (1, "no-space")
    assert error["remedy"].startswith("Free some space")


@needs_root
def test_lab_folder_without_room_for_the_system_keeps_no_half_of_it(
    tmp_path, stand_in, nothing_left
):
    stand_in('head -c 8M /dev/zero > "$root/big"')
    cache = tmp_path / "cache"
    Cache(cache).packages(lambda _: None)
    words = ("--dir", str(tmp_path / "disk/lab"), "--cache", str(cache))
    status, error, left = up_with_small_disk(tmp_path, "11m", *words)
    assert (status, error["code"]) == (1, "tool-failed")
    assert "./big: " in error["got"]
    assert "full disk" in error["remedy"]
    assert [name for name in left if "tree" in name] == []
    assert "./lab/keys/PK.crt" in left


@needs_root
def test_cache_without_room_keeps_no_half_of_the_download(tmp_path, stand_in, nothing_left):
    stand_in('head -c 8M /dev/zero > "$root/big"')
    words = ("--dir", str(tmp_path / "lab"), "--cache", str(tmp_path / "disk/cache"))
    status, error, left = up_with_small_disk(tmp_path, "2m", *words)
    assert (status, error["code"]) == (1, "tool-failed")
    assert "No space left on device" in error["got"]
    assert left == [".", "./cache", "./cache/.lock"]


@needs_root
def test_folder_of_somebody_else_is_a_clear_error(tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and str(folder).startswith("/tmp/pytest"):
            folder.chmod(0o755)
    probe = subprocess.run(
        [*NOBODY, *CATENA, "--version"], capture_output=True, check=False, cwd="/"
    )
    if probe.returncode != 0:
        pytest.skip("this checkout is not readable for other users")
    done = subprocess.run(
        [*NOBODY, *CATENA, "lab", "up", "--dir", str(tmp_path / "lab"), "-o", "json"],
        capture_output=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 1, done
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "access-denied"
    assert str(tmp_path / "lab") in error["message"]
    assert done.stderr == b""


@needs_root
@pytest.mark.parametrize("number", [SIGINT, SIGTERM, SIGHUP, SIGKILL])
def test_up_that_is_stopped_midway_leaves_no_process_and_no_mount(tmp_path, stand_in, number):
    # Like the real one at work: file systems mounted in the new root, a process of its own.
    stand_in(
        f'mkdir "$root/proc"; mount -t proc proc "$root/proc"; touch {tmp_path}/busy\n'
        'sh -c "while :; do sleep 0.2; done" "$root" & wait'
    )
    lab, cache = tmp_path / "lab", tmp_path / "cache"
    command = [*CATENA, "lab", "up", "--dir", str(lab), "--cache", str(cache), "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as up:
        try:
            await_that((tmp_path / "busy").exists, "debootstrap at work")
            await_that(lambda: len(processes_naming(cache)) >= 3, "its own process at work")
            up.send_signal(number)
            answer, _ = up.communicate(timeout=20)
        finally:
            up.kill()  # or leaving the block would wait for ever
    await_that(lambda: processes_naming(tmp_path) == {}, "nothing runs")
    assert mounts_below(tmp_path) == []
    if number == SIGKILL:
        assert answer == b""
    else:
        assert json.loads(answer)["error"]["code"] == "stopped"
        assert [path.name for path in cache.iterdir()] == [".lock"]
    assert -up.returncode == number
    # What a killed one left in the cache goes when the next one works there.
    shutil.copy("/bin/true", tmp_path / "bin/debootstrap")
    made = Cache(cache).packages(lambda _: None)
    assert {path.name for path in cache.iterdir()} == {".lock", made.name}
