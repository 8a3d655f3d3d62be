"""The wrapper as it stands where runc is expected, before a runtime that tells how it was called."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from catena.containers.wrapper import files, protocol
from catena.containers.wrapper.files import UnusablePath
from catena.errors import Refusal

PASSED_ON = [
    "checkpoint",
    "events",
    "features",
    "help",
    "kill",
    "list",
    "pause",
    "ps",
    "resume",
    "spec",
    "start",
    "state",
    "update",
]
ASKED = ["create", "run", "exec", "restore", "delete"]
RUNTIME = """#!/bin/sh
printf '%s\\0' "$@" > "$TOLD/argv"
env -0 > "$TOLD/env"
grep -E '^(SigIgn|SigBlk)' /proc/self/status > "$TOLD/signals"
pwd > "$TOLD/cwd"
ls -l /proc/self/fd > "$TOLD/files"
echo $$ > "$TOLD/pid"
"""

pytestmark = pytest.mark.skipif(not files.PYTHON.exists(), reason="needs /usr/bin/python3")


@pytest.fixture
def told(tmp_path):
    folder = tmp_path / "told"
    folder.mkdir()
    return folder


@pytest.fixture
def runtime(tmp_path):
    path = tmp_path / "runtime"
    path.write_text(RUNTIME)
    path.chmod(0o755)
    return path


@pytest.fixture
def wrapper(tmp_path, runtime):
    return files.write(
        tmp_path / "lib", runtime=runtime, python=files.PYTHON, gate=tmp_path / "gate.sock"
    )


@pytest.fixture
def call(wrapper, told, tmp_path):
    def run(*words, env=None, **more):
        return subprocess.run(
            [str(wrapper), *map(str, words)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "TOLD": str(told), **(env or {})},
            **more,
        )

    return run


@pytest.fixture
def gate(tmp_path):
    """A gate that gives what is put into ``answers``, and keeps what it was asked."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "gate.sock"))
    listener.listen()
    listener.settimeout(20)
    asked, answers = [], []

    def serve():
        while True:
            try:
                channel, _ = listener.accept()
            except OSError:
                return
            with channel:
                size = int.from_bytes(channel.recv(4), "big")
                asked.append(channel.recv(size, socket.MSG_WAITALL))
                channel.sendall(answers.pop(0))

    thread = threading.Thread(target=serve)
    thread.start()
    yield asked, answers
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def argv(told: Path) -> list[str]:
    return (told / "argv").read_text().split("\0")[:-1]


def allowing(runtime: Path, *words: str) -> bytes:
    return protocol.frame(protocol.allow(runtime, words))


# Without the gate ----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", PASSED_ON)
def test_what_starts_nothing_goes_straight_on(call, told, verb):
    words = ["--root", "create", "--log=x", "--debug", verb, "--flag", "a b", ""]
    assert call(*words).returncode == 0
    assert argv(told) == words


@pytest.mark.parametrize("words", [["--version"], ["-v"], ["--root", "/r", "--help"], []])
def test_version_and_help_go_straight_on(call, told, words):
    assert call(*words).returncode == 0
    assert argv(told) == (words or [""])  # printf prints one empty word for none


@pytest.mark.parametrize(
    "words",
    [
        ["init"],
        ["mounts", "add"],
        ["--unknown", "state"],
        ["-root", "/r", "state"],
        ["--version", "run", "c"],
        ["--root"],
        ["--", "state", "c"],
        [""],
        ["state\n"],
        ["Run", "c"],
    ],
)
def test_what_is_not_known_is_refused(call, told, words):
    done = call(*words)
    assert done.returncode == 1
    assert "[unknown-command]" in done.stderr
    assert not (told / "argv").exists()


@pytest.mark.parametrize("verb", ["create", "run", "exec", "restore"])
def test_nothing_starts_without_a_gate(call, told, tmp_path, verb):
    log = tmp_path / "log"
    done = call("--log", log, "--log-format", "json", verb, "c1", "x")
    assert done.returncode == 1
    assert not (told / "argv").exists()
    line = json.loads(log.read_text())
    assert line["level"] == "error"
    assert "[gate-unreachable]" in line["msg"]
    assert line["msg"] in done.stderr


def test_delete_goes_on_without_a_gate(call, told):
    assert call("delete", "--force", "c1").returncode == 0
    assert argv(told) == ["delete", "--force", "c1"]


def test_log_in_text_is_in_text(call, tmp_path):
    log = tmp_path / "log"
    call(f"--log={log}", "run", "c1")
    assert log.read_text().startswith('time="')
    assert 'level=error msg="catena refused' in log.read_text()


def test_log_that_cannot_be_written_changes_no_refusal(call, told, tmp_path):
    done = call("--log", tmp_path / "absent" / "log", "run", "c1")
    assert done.returncode == 1
    assert not (told / "argv").exists()


# With a gate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["create", "run", "exec", "restore"])
def test_gate_says_what_is_run(call, told, gate, runtime, verb):
    asked, answers = gate
    answers.append(allowing(runtime, verb, "--bundle=/private", "c1"))
    assert call("--log", "/dev/null", verb, "--bundle", "b \xe4", "c1").returncode == 0
    request = protocol.parse_request(asked[0])
    assert (request.folder, request.runtime) == (runtime.parent, runtime)
    assert request.words == ("--log", "/dev/null", verb, "--bundle", "b ä", "c1")
    assert argv(told) == [verb, "--bundle=/private", "c1"]


def test_refusal_reaches_log_and_terminal(call, told, gate, tmp_path):
    _, answers = gate
    answers.append(protocol.frame(protocol.deny(Refusal('no "way"\n', got="ü"))))
    done = call("--log", tmp_path / "log", "--log-format=json", "run", "c1")
    assert done.returncode == 1
    line = json.loads((tmp_path / "log").read_text())
    assert line["msg"] == 'catena refused: no "way"\n (got ü) [refused]'
    assert not (told / "argv").exists()


def test_refusal_of_a_gate_that_does_not_even_read_is_told(call, told, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "gate.sock"))
        listener.listen()

        def turn_away():
            channel, _ = listener.accept()
            with channel:
                channel.sendall(protocol.frame(protocol.deny(Refusal("too many"))))

        listener.settimeout(20)
        thread = threading.Thread(target=turn_away)
        thread.start()
        done = call("run", "--bundle", "x" * 100_000, "c1")
        thread.join()
    assert (done.returncode, done.stderr) == (1, "catena refused: too many [refused]\n")
    assert not (told / "argv").exists()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0\0\0",
        b"\xff\xff\xff\xff",
        protocol.frame(b""),
        protocol.frame(b"allow"),
        protocol.frame(b"allow\0"),
        protocol.frame(b"allow\0/bin/sh\0-c\0id"),
        protocol.frame(b"ALLOW\0/runtime"),
        protocol.frame(b"deny\0code"),
        b"\0\0\0\x40allow\0",
    ],
)
def test_answer_that_makes_no_sense_starts_nothing(call, told, gate, answer):
    _, answers = gate
    answers.append(answer)
    done = call("run", "c1")
    assert done.returncode == 1
    assert "[gate-unreachable]" in done.stderr
    assert not (told / "argv").exists()


@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C"}, {"LC_CTYPE": ""}, {"LC_ALL": "C"}])
def test_real_runtime_finds_its_surroundings_as_the_caller_left_them(
    call, told, gate, runtime, locale
):
    _, answers = gate
    answers.append(allowing(runtime, "run", "c1"))
    with (Path("/dev/null")).open() as extra:
        os.set_inheritable(extra.fileno(), True)
        call("run", "c1", env={"A": "b", **locale}, pass_fds=[extra.fileno()])
        assert f" {extra.fileno()} -> /dev/null" in (told / "files").read_text()
    found = dict(one.split("=", 1) for one in (told / "env").read_text().split("\0")[:-1])
    for name in ("PWD", "OLDPWD", "_", "SHLVL", "PATH", "TOLD"):
        found.pop(name, None)
    assert found == {"A": "b", **locale}
    signals = dict(line.split(":\t") for line in (told / "signals").read_text().splitlines())
    assert int(signals["SigIgn"], 16) & (1 << (signal.SIGPIPE - 1)) == 0
    assert int(signals["SigBlk"], 16) == 0
    open_files = (told / "files").read_text()
    assert "socket:" not in open_files
    assert "client.py" not in open_files
    assert "catena-runc" not in open_files


def test_real_runtime_is_the_process_that_was_started(wrapper, told, gate, runtime):
    _, answers = gate
    answers.append(allowing(runtime, "run", "c1"))
    environment = {"PATH": os.environ["PATH"], "TOLD": str(told)}
    with subprocess.Popen([str(wrapper), "run", "c1"], env=environment) as process:
        assert process.wait(20) == 0
    assert int((told / "pid").read_text()) == process.pid


def test_missing_runtime_is_told(tmp_path, gate):
    absent = tmp_path / "absent"
    wrapper = files.write(
        tmp_path / "other", runtime=absent, python=files.PYTHON, gate=tmp_path / "gate.sock"
    )
    gate[1].append(allowing(absent, "run", "c1"))
    done = subprocess.run([wrapper, "run", "c1"], capture_output=True, timeout=20, check=False)
    assert done.returncode == 1
    assert b"[runtime-missing]" in done.stderr


def test_environment_cannot_change_the_wrapper(call, told, tmp_path):
    (tmp_path / "evil").mkdir()
    for name in ("client", "posix", "time", "_socket", "sitecustomize"):
        (tmp_path / "evil" / f"{name}.py").write_text("open('/proc/self/comm').read(); 1/0")
    evil = {"PYTHONPATH": str(tmp_path / "evil"), "PYTHONSTARTUP": "x", "PYTHONHOME": "/evil"}
    done = call("run", "c1", env={**evil, "ENV": "/evil", "IFS": "e", "PATH": str(tmp_path)})
    assert "[gate-unreachable]" in done.stderr


@pytest.mark.parametrize("path", ["relative", "/a b", "/a'b", "/a\nb", "/$(x)", "/a@RUNTIME@"])
def test_path_that_a_shell_could_misread_is_refused(path):
    with pytest.raises(UnusablePath) as refused:
        files.shell_half(
            Path("/lib"), runtime=Path(path), python=files.PYTHON, gate=Path("/gate.sock")
        )
    assert refused.value.code == "wrapper-path-unusable"
