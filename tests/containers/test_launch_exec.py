"""``runc exec``'s command line as the process that runc makes of it, and the gate judges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launch_vectors import STRICT, ordinary, parsed

from catena.agent.gate.process import BadExec, process_document
from catena.containers.launch.check import check_exec
from catena.containers.launch.refusals import LaunchRefused, UnknownExecOption
from catena.containers.wrapper.command import parse_command
from catena.formats.runtime import parse_process

OWN = parsed(ordinary()).started
CONFIG = json.dumps(ordinary()).encode()
TRUE = ("c1", "/bin/true")


def process(*words: str):
    command = parse_command(["exec", *words])
    return parse_process(process_document(Path("/nowhere"), command, CONFIG))


def test_without_options_it_is_the_containers_process_with_another_command():
    asked = process(*TRUE)
    assert asked.argv == ("/bin/true",)
    assert (asked.env, asked.cwd, asked.user_text) == (OWN.env, "/", "0:0")
    check_exec(asked, STRICT)


def test_options_change_what_they_say():
    words = (
        "-t --user 5:6 -g 7 --additional-gids=8 -e A=1 --env B=2 --cwd /x --cap CAP_BPF -c CAP_X"
    )
    asked = process(*words.split(), "c1", "sh", "-c", "id")
    assert asked.argv == ("sh", "-c", "id")
    assert (asked.user_text, asked.cwd, asked.terminal) == ("5:6", "/x", True)
    assert asked.user.additional_gids == (0, 10, 7, 8)
    assert asked.env_pairs[-2:] == (("A", "1"), ("B", "2"))
    assert {"CAP_BPF", "CAP_X", "CAP_CHOWN"} <= set(asked.capability_names)


def test_privileges_can_be_given_up_and_never_taken_back():
    assert process("--no-new-privs", *TRUE).no_new_privileges
    assert process(*TRUE).no_new_privileges == OWN.no_new_privileges


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("c1", "/bin/sh"), "exec-not-allowed"),
        (("--env", "LD_PRELOAD=/x", *TRUE), "launch-env"),
        (("-e=LD_PRELOAD=/x", *TRUE), "launch-env"),
        (("--env=PATH=/x", *TRUE), "launch-env"),
        (("--user=1000", *TRUE), "launch-user"),
        (("-g", "11", *TRUE), "launch-user"),
        (("-c", "CAP_SYS_ADMIN", *TRUE), "launch-capability"),
        (("--cwd", "/data", *TRUE), "launch-directory"),
        (("--cgroup", "memory:../../other", *TRUE), "launch-privileges"),
    ],
)
def test_an_exec_beyond_the_policy_is_refused(words, code):
    with pytest.raises(LaunchRefused) as refused:
        check_exec(process(*words), STRICT)
    assert refused.value.code == code


def test_an_exec_without_a_command_is_refused():
    with pytest.raises(BadExec):
        process("c1")


@pytest.mark.parametrize(
    "user", ["4294967296", "-1", "+0", "0x0", "root", "1:", "1:x", ":1", "٠", " 0"]
)
def test_a_user_is_a_plain_number(user):
    with pytest.raises(UnknownExecOption):
        process(f"--user={user}", *TRUE)
