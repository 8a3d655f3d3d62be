"""The wrapper as it stands where runc is expected, before a runtime that tells how it was called."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import tempfile
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


@pytest.fixture
def place():
    """A folder with a short name: the wrapper's line holds three paths below it."""
    with tempfile.TemporaryDirectory(prefix="w-") as folder:
        yield Path(folder)


@pytest.fixture
def told(place):
    folder = place / "told"
    folder.mkdir()
    return folder


@pytest.fixture
def runtime(place):
    path = place / "runtime"
    path.write_text(RUNTIME)
    path.chmod(0o755)
    return path


@pytest.fixture
def wrapper(place, runtime):
    return files.write(place / "lib", runtime=runtime, gate=place / "gate.sock")


@pytest.fixture
def call(wrapper, told, place):
    def run(*words, env=None, **more):
        return subprocess.run(
            [str(wrapper), *map(str, words)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            cwd=place,
            env={"PATH": os.environ["PATH"], "TOLD": str(told), **(env or {})},
            **more,
        )

    return run


@pytest.fixture
def gate(place):
    """A gate that gives what is put into ``answers``, and keeps what it was asked."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place / "gate.sock"))
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
def test_nothing_starts_without_a_gate(call, told, place, verb):
    log = place / "log"
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


def test_log_in_text_is_in_text(call, place):
    log = place / "log"
    call(f"--log={log}", "run", "c1")
    assert log.read_text().startswith('time="')
    assert 'level=error msg="catena refused' in log.read_text()


def test_log_that_cannot_be_written_changes_no_refusal(call, told, place):
    done = call("--log", place / "absent" / "log", "run", "c1")
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


def test_refusal_reaches_log_and_terminal(call, told, gate, place):
    _, answers = gate
    answers.append(protocol.frame(protocol.deny(Refusal('no "way"\n', got="ü"))))
    done = call("--log", place / "log", "--log-format=json", "run", "c1")
    assert done.returncode == 1
    line = json.loads((place / "log").read_text())
    assert line["msg"] == 'catena refused: no "way"\n (got \\xfc) [refused]'
    assert not (told / "argv").exists()


def test_refusal_of_a_gate_that_does_not_even_read_is_told(call, told, place):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "gate.sock"))
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
    assert "catena-runc" not in open_files


def test_real_runtime_is_the_process_that_was_started(wrapper, told, gate, runtime):
    _, answers = gate
    answers.append(allowing(runtime, "run", "c1"))
    environment = {"PATH": os.environ["PATH"], "TOLD": str(told)}
    with subprocess.Popen([str(wrapper), "run", "c1"], env=environment) as process:
        assert process.wait(20) == 0
    assert int((told / "pid").read_text()) == process.pid


def test_missing_runtime_is_told(place, gate):
    absent = place / "absent"
    wrapper = files.write(place / "other", runtime=absent, gate=place / "gate.sock")
    gate[1].append(allowing(absent, "run", "c1"))
    done = subprocess.run([wrapper, "run", "c1"], capture_output=True, timeout=20, check=False)
    assert done.returncode == 1
    assert b"[runtime-missing]" in done.stderr


def test_environment_loads_nothing_into_the_wrapper(call, told, place):
    (place / "evil.c").write_text("__attribute__((constructor)) void f(void) { _Exit(7); }")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-include", "stdlib.h", "-o", "evil.so", "evil.c"],
        cwd=place,
        check=True,
    )
    evil = {"LD_PRELOAD": f"{place}/evil.so", "LD_LIBRARY_PATH": str(place), "LD_DEBUG": "all"}
    assert subprocess.run(["/bin/true"], env=evil, check=False, stderr=-3).returncode == 7
    done = call("run", "c1", env=evil)
    assert (done.returncode, done.stderr[:15]) == (1, "catena refused:")


def test_wrapper_says_what_it_is(wrapper, runtime, place):
    assert wrapper.read_text() == f"#!{place}/lib/gate-client {runtime} {place}/gate.sock\n"
    assert files.is_wrapper(wrapper.read_bytes())
    assert not files.is_wrapper(runtime.read_bytes())
    assert not files.is_wrapper(files.client())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["/r"],
        ["/r /g"],
        ["", "x"],
        ["/r", "x"],
        ["/r g", "x"],
        ["r /g", "x"],
        ["/r /g /h", "x"],
    ],
)
def test_client_without_its_line_runs_nothing(wrapper, words):
    client = wrapper.with_name(files.CLIENT)
    done = subprocess.run([client, *words, "state"], capture_output=True, timeout=20, check=False)
    assert done.returncode == 1
    if len(words) > 1:
        assert b"[unknown-command]" in done.stderr


@pytest.mark.parametrize(
    "path", ["relative", "/a b", "/a'b", "/a\nb", "/$(x)", "/a@b", "/" + "a" * 201]
)
def test_path_that_the_line_cannot_hold_is_refused(path):
    with pytest.raises(UnusablePath) as refused:
        files.line(Path("/lib"), runtime=Path(path), gate=Path("/gate.sock"))
    assert refused.value.code == "wrapper-path-unusable"


def test_line_that_linux_would_cut_is_refused():
    long = Path("/" + "a" * 120)
    with pytest.raises(UnusablePath, match="too long together"):
        files.line(Path("/lib"), runtime=long, gate=long)


def test_gate_of_another_user_is_not_asked(call, told, place):
    gate = """
import os, socket, sys
channel = socket.socket(socket.AF_UNIX)
channel.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
os.setuid(65534)
channel.listen()
print(flush=True)
channel.accept()[0].recv(4)
"""
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", gate, place / "gate.sock"], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        done = call("run", "c1")
        assert "it is not root's [gate-unreachable]" in done.stderr
        assert not (told / "argv").exists()
        process.wait(20)


def test_command_line_that_no_frame_holds_is_refused(call, told, gate):
    done = call("run", *["x" * 100_000] * 11, "c1")
    assert "the command line is too long [gate-unreachable]" in done.stderr


@pytest.mark.parametrize("answer", [b"deny\0code\0message", b"allow\0/bin/sh\0-c\0id", b""])
def test_delete_goes_on_whatever_the_gate_says(call, told, gate, answer):
    gate[1].append(protocol.frame(answer))
    assert call("delete", "c1").returncode == 0
    assert argv(told) == ["delete", "c1"]


# Hostile bytes, under the compiler's own checks ------------------------------------------------


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """The client with address and undefined-behaviour sanitizers."""
    source = Path(files.__file__).with_name("gate-client.c")
    made = tmp_path_factory.mktemp("checked") / "client"
    flags = ["-std=c17", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    subprocess.run(["gcc", *flags, "-o", made, source], check=True)
    return made


def test_no_answer_and_no_command_line_breaks_the_client(checked, place, runtime, told):
    """Each call ends as a refusal, or in the runtime it was allowed to run."""
    chance = random.Random(4)
    sound = [protocol.allow(runtime, ["run", "c1"]), protocol.deny(Refusal('"no"\n'))]
    words = ["--log", "--log=x", "--log-format=json", "--root", "--debug", "run", "delete", "exec"]
    words += [
        "",
        "-",
        "--",
        "-v",
        "=",
        "--=",
        "--log-format=",
        "x" * 70_000,
        '\x01\x7fä"\\',
        "state",
    ]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place / "gate.sock"))
    listener.listen()
    listener.settimeout(20)
    environment = {"TOLD": str(told), "PATH": os.environ["PATH"]}
    with listener:
        for _ in range(150):
            given = [chance.choice(words) for _ in range(chance.randrange(5))]
            command = [checked, f"{runtime} {place}/gate.sock", "catena-runc", *given]
            with subprocess.Popen(
                command, env=environment, cwd=told, stderr=subprocess.PIPE
            ) as process:
                while process.poll() is None:
                    if select.select([listener], [], [], 0.01)[0]:
                        answer_with(listener, hostile(chance, sound))
                complaint = process.stderr.read()
            assert process.returncode in {0, 1}, complaint
            assert b"Sanitizer" not in complaint
            assert b"runtime error" not in complaint


def hostile(chance: random.Random, sound: list[bytes]) -> bytes:
    """A frame that is sound, cut, flipped, or of another length than it says."""
    frame = bytearray(protocol.frame(chance.choice(sound) * chance.randrange(3)))
    for _ in range(chance.randrange(4)):
        frame[chance.randrange(len(frame))] = chance.randrange(256)
    return bytes(frame[: chance.choice([len(frame), chance.randrange(len(frame) + 1)])])


def answer_with(listener: socket.socket, answer: bytes) -> None:
    channel, _ = listener.accept()
    with channel, contextlib.suppress(OSError):
        channel.sendall(answer)
        channel.shutdown(socket.SHUT_WR)
        while channel.recv(65536):
            pass
