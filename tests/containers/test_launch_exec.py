"""``runc exec``'s command line as the process that runc makes of it."""

from __future__ import annotations

import pytest
from launch_vectors import STRICT, ordinary, parsed

from catena.containers.launch.arguments import parse_exec
from catena.containers.launch.check import check_exec
from catena.containers.launch.refusals import LaunchRefused, UnknownExecOption

OWN = parsed(ordinary()).started
TRUE = ("c1", "/bin/true")


def process(*words: str):
    return parse_exec(words).process(OWN)


def test_without_options_it_is_the_containers_process_with_another_command():
    asked = process(*TRUE)
    assert asked.argv == ("/bin/true",)
    assert (asked.env, asked.cwd, asked.user_text) == (OWN.env, "/", "0:0")
    check_exec(asked, STRICT)


def test_options_change_what_they_say():
    words = "-t --user 5:6 -g 7 --additional-gids=8 -e A=1 --env B=2 -cwd /x --cap CAP_BPF -c CAP_X"
    asked = process(*words.split(), "--no-new-privs=false", "c1", "sh", "-c", "id")
    assert asked.argv == ("sh", "-c", "id")
    assert (asked.user_text, asked.cwd, asked.terminal) == ("5:6", "/x", True)
    assert asked.user.additional_gids == (0, 10, 7, 8)
    assert asked.env_pairs[-2:] == (("A", "1"), ("B", "2"))
    assert {"CAP_BPF", "CAP_X", "CAP_CHOWN"} <= set(asked.capability_names)
    assert not asked.no_new_privileges


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("c1", "/bin/sh"), "exec-not-allowed"),
        (("c1",), "exec-not-allowed"),
        (("--env", "LD_PRELOAD=/x", *TRUE), "launch-env"),
        (("-e=LD_PRELOAD=/x", *TRUE), "launch-env"),
        (("--env=PATH=/x", *TRUE), "launch-env"),
        (("-user=1000", *TRUE), "launch-user"),
        (("-g", "11", *TRUE), "launch-user"),
        (("-c", "CAP_SYS_ADMIN", *TRUE), "launch-capability"),
        (("--cwd", "/data", *TRUE), "launch-directory"),
        (("--no-new-privs=F", *TRUE), "launch-privileges"),
    ],
)
def test_an_exec_beyond_the_policy_is_refused(words, code):
    with pytest.raises(LaunchRefused) as refused:
        check_exec(process(*words), STRICT)
    assert refused.value.code == code


def test_options_end_at_the_containers_name():
    asked = parse_exec(("--detach", "c1", "--user", "0"))
    assert (asked.container, asked.command) == ("c1", ("--user", "0"))
    asked = parse_exec(("--", "c1", "--", "--tty"))
    assert (asked.container, asked.command) == ("c1", ("--tty",))


def test_a_process_file_is_named():
    asked = parse_exec(("--process", "/tmp/p", "--pid-file=/x", "--preserve-fds", "0", "c1"))
    assert (asked.process_file, asked.container, asked.command) == ("/tmp/p", "c1", ())
    assert parse_exec(TRUE).process_file == ""


@pytest.mark.parametrize(
    "words",
    [
        ("--bundle", "/x", *TRUE),
        ("--new-option", *TRUE),
        ("-tc", *TRUE),
        ("---user", "0", *TRUE),
        ("--user", "0", "-u", "1", *TRUE),
        ("--process=/a", "-p", "/b", "c1"),
        ("--tty", "--tty=false", *TRUE),
        ("--tty=yes", *TRUE),
        ("--user",),
        (),
        ("--",),
    ],
)
def test_an_option_that_nobody_knows_or_that_is_doubled_is_refused(words):
    with pytest.raises(UnknownExecOption) as refused:
        parse_exec(words)
    assert refused.value.code == "exec-unknown-option"


@pytest.mark.parametrize(
    "user", ["4294967296", "-1", "+0", "0x0", "root", "1:", "1:x", ":1", "٠", " 0"]
)
def test_a_user_is_a_plain_number(user):
    with pytest.raises(UnknownExecOption):
        process("--user", user, *TRUE)
