from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from catena.cli.main import DEBUG, NOUNS, catena, run
from catena.cli.output import Noun, Verb
from catena.errors import ExitCode
from catena.lab import requirements

CATENA = [sys.executable, "-m", "catena.cli.main"]

SERVES = {"server run", "agent run", "agent gate"}
"""Verbs that run until they are told to end, and print lines instead of a document."""


def commands() -> dict[str, click.Command]:
    """Every noun and every verb, by the words that call it."""
    found: dict[str, click.Command] = {}
    context = click.Context(catena)
    for name in NOUNS:
        command = catena.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {verb}": sub for verb, sub in command.commands.items()}
    return found


COMMANDS = commands()
VERBS = {words: found for words, found in COMMANDS.items() if not isinstance(found, click.Group)}


@pytest.mark.parametrize("words", ["", *COMMANDS])
def test_help_has_synopsis_exit_codes_and_an_example(words, capsys):
    assert run([*words.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: catena {words}".rstrip())
    assert len(text.split("\n\n")[1].strip()) > 20
    assert "\nExit codes:\n" in text
    for code in (ExitCode.OK, ExitCode.INTERNAL, ExitCode.USAGE):
        assert f"\n  {int(code)} " in text
    examples = text.partition("\nExamples:\n")[2].split("\n")
    assert examples[0].startswith(f"  catena {words}".rstrip())


@pytest.mark.parametrize("words", COMMANDS)
def test_short_help_option_is_the_same_everywhere(words, capsys):
    assert run([*words.split(), "-h"]) == 0
    assert capsys.readouterr().out.startswith("Usage: ")


@pytest.mark.parametrize("words", VERBS)
def test_every_verb_that_prints_can_print_json(words):
    options = [option for param in VERBS[words].params for option in param.opts]
    assert ("--output" in options and "-o" in options) is (words not in SERVES)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_is_of_the_house(words):
    assert isinstance(COMMANDS[words], Noun | Verb)


@pytest.mark.parametrize("words", VERBS)
def test_examples_name_verbs_and_options_that_exist(words):
    known = {option for param in VERBS[words].params for option in param.opts} | {"-o", "--help"}
    for example in VERBS[words].examples:
        for line in example.replace("\\\n", " ").split("catena ")[1:]:
            used = {word.partition("=")[0] for word in line.split() if word.startswith("-")}
            if line.startswith(words):
                assert used - {"-"} <= known, example


def test_nouns_are_not_imported_for_help():
    code = (
        "import sys; from catena.cli.main import run; run(['--help']);"
        "sys.exit(any(name.startswith('catena.cli.') and name not in "
        "('catena.cli.main', 'catena.cli.output') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    "words", [["nonesuch"], ["lab", "nonesuch"], ["lab", "down", "--nonesuch"], ["lab", "boot"]]
)
def test_wrong_words_are_usage_errors(words, capsys):
    assert run(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error: " in captured.err
    assert run([*words, "-o", "json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "usage"
    assert error["remedy"]


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (errno.ENOSPC, "no-space", 1),
        (errno.EDQUOT, "no-space", 1),
        (errno.EACCES, "access-denied", 1),
        (errno.EPERM, "access-denied", 1),
        (errno.EROFS, "access-denied", 1),
        (errno.ENOENT, "no-such-file", 3),
        (errno.ENOTDIR, "no-such-file", 3),
        (errno.EIO, "io-error", 1),
        (errno.EMFILE, "io-error", 1),
    ],
)
def test_errors_of_the_operating_system_are_told(broken, capsys, number, code, status):
    broken(OSError(number, os.strerror(number), "some/file"))
    assert run(["doctor", "-o", "json"]) == status
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["code"] == code
    assert error["message"] == f"{os.strerror(number)}: some/file"
    assert error["remedy"]
    assert captured.err == ""


def test_time_out_without_a_number_is_told(broken, capsys):
    broken(TimeoutError())
    assert run(["doctor"]) == 1
    assert capsys.readouterr().err.startswith("error: TimeoutError [io-error]\n")


def test_what_nobody_foresaw_is_one_document_without_a_traceback(broken, capsys, monkeypatch):
    monkeypatch.delenv(DEBUG, raising=False)
    broken(ZeroDivisionError("it \x1b[31m broke " + "x" * 5000))
    assert run(["doctor", "-o", "json"]) == 1
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["code"] == "internal"
    assert error["message"].startswith(r"ZeroDivisionError: it \x1b[31m broke xxx")
    assert len(error["message"]) <= 300
    assert "CATENA_DEBUG=1" in error["remedy"]
    assert captured.err == ""


def test_debug_adds_the_traceback_on_standard_error_only(broken, capsys, monkeypatch):
    monkeypatch.setenv(DEBUG, "1")
    broken(ZeroDivisionError("it broke"))
    assert run(["doctor", "-o", "json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["message"] == "ZeroDivisionError: it broke"
    assert "Traceback (most recent call last)" in captured.err
    assert run(["doctor"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ZeroDivisionError: it broke [internal]\nremedy: ")


def test_interruption_is_one_document_too(broken, capsys):
    broken(KeyboardInterrupt())
    assert run(["doctor", "-o", "json"]) == 130
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "stopped"


def test_full_standard_output_is_told_on_standard_error():
    for words in (["doctor"], ["doctor", "-o", "json"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*CATENA, *words], stdout=full, stderr=subprocess.PIPE, check=False
            )
        assert done.returncode == 1
        assert done.stderr.startswith(b"error: No space left on device [no-space]\n")
        assert b"Traceback" not in done.stderr


def test_reader_that_goes_away_ends_the_command_silently():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*CATENA, "doctor"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_command_that_is_told_to_end_dies_of_that_signal_and_says_so(tmp_path, number):
    fifo = tmp_path / "passphrase"
    os.mkfifo(fifo)
    command = [*CATENA, "keys", "init", str(tmp_path / "keys"), "--passphrase-file", str(fifo)]
    with subprocess.Popen(
        [*command, "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as waiting:
        try:
            end = _give_nothing(fifo)
            waiting.send_signal(number)
            # A signal that came just before the read began is seen when the read ends.
            os.close(end)
            answer, said = waiting.communicate(timeout=10)
        finally:
            waiting.kill()
    assert waiting.returncode == -number
    assert json.loads(answer)["error"]["message"] == f"stopped by {number.name}"
    assert said.strip() == b""
    assert list(tmp_path.iterdir()) == [fifo]


def test_ignored_signals_stay_ignored():
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from catena.cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.fixture
def broken(monkeypatch):
    """Make `doctor` fail in a way that nobody wrote a line for."""

    def with_error(error: BaseException) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(requirements, "examine", fail)

    return with_error


def _give_nothing(fifo: Path) -> int:
    """Open the other end once a reader waits there; it then waits for what never comes."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline, "nobody reads"
            time.sleep(0.01)
