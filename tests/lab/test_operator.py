from __future__ import annotations

import os
import subprocess
import sys

import pytest

from catena.errors import ExitCode
from catena.lab.operator import CommandRefused, CommandStuck, Operator
from living import assert_gone, await_that, processes_naming


@pytest.fixture
def operator(tmp_path):
    return Operator(tmp_path / "admin.toml")


def test_command_gives_its_document(operator, tmp_path):
    made = operator.run("keys", "init", tmp_path / "keys")
    assert made["folder"] == str(tmp_path / "keys")
    assert operator.history == [f"catena keys init {tmp_path / 'keys'}"]


def test_refused_command_keeps_its_code_exit_code_and_remedy(operator, tmp_path):
    with pytest.raises(CommandRefused) as refused:
        operator.run("keys", "show", tmp_path)
    error = refused.value
    assert error.code == "no-key-folder"
    assert error.exit_code is ExitCode.NOT_FOUND
    assert error.remedy
    assert error.as_dict()["got"] == str(tmp_path)
    assert error.message == f"`catena keys show {tmp_path}`: not a key folder"
    assert CommandRefused.code == "command-refused"


def test_wrong_words_are_a_usage_error(operator):
    with pytest.raises(CommandRefused) as refused:
        operator.run("keys", "no-such-verb")
    assert (refused.value.code, refused.value.exit_code) == ("usage", ExitCode.USAGE)


@pytest.fixture
def waiting(tmp_path, nothing_left):
    """A command that waits for a passphrase that never comes."""
    os.mkfifo(tmp_path / "passphrase")
    return ("keys", "init", tmp_path / "keys", "--passphrase-file", tmp_path / "passphrase")


def test_command_that_does_not_end_is_ended(operator, waiting):
    with pytest.raises(CommandStuck, match=r"keys init .* took longer than 1 s"):
        operator.run(*waiting, seconds=0.9)


def test_command_is_told_to_end_when_its_caller_is_killed(waiting, tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from catena.lab.operator import Operator\n"
        "Operator(Path('none')).run(*sys.argv[1:])\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, *waiting]) as caller:
        await_that(lambda: len(processes_naming(tmp_path)) == 2, "command")
        family = processes_naming(tmp_path)
        caller.kill()
    assert_gone(family)
