from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.containers.wrapper.command import CommandRefused, Verb, parse_command

ID = "c-1"
FLAGS = {
    Verb.CREATE: {"--no-new-keyring"},
    Verb.RUN: {"--detach", "-d", "--keep", "--no-subreaper"},
    Verb.EXEC: {"--tty", "-t", "--detach", "--no-new-privs", "--ignore-paused"},
    Verb.RESTORE: {"--tcp-established", "--lazy-pages"},
    Verb.DELETE: {"--force", "-f"},
}


@pytest.mark.parametrize(
    "line",
    [
        "--root /run/x --log /l --log-format json create --bundle /b --pid-file /p c-1",
        "--root=/run/x --log=/l --log-format=json create -b /b --pid-file=/p c-1",
        "--root /run/x --log /l --log-format json create --pid-file /p -b=/b c-1",
    ],
)
def test_spellings_of_one_call_become_one(line):
    command = parse_command(line.split())
    assert (command.verb, command.container, command.root) == (Verb.CREATE, ID, "/run/x")
    assert sorted(command.words()) == sorted(
        [
            "--root=/run/x",
            "--log=/l",
            "--log-format=json",
            "create",
            "--bundle=/b",
            "--pid-file=/p",
            "c-1",
        ]
    )


def test_what_engines_call_is_understood():
    containerd = "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p --console-socket /s --no-new-keyring ID"
    conmon = "--log-format=json --log=/l create --bundle /b --pid-file /p ID"
    assert parse_command(containerd.split()).value("console-socket") == "/s"
    assert parse_command(conmon.split()).root == "/run/runc"
    assert (
        parse_command(["exec", "--process", "/p", "--detach", "--pid-file", "/q", "ID"]).arguments
        == ()
    )
    assert parse_command(["delete", "--force", "ID"]).verb is Verb.DELETE
    assert parse_command(["run", "ID"]).value("bundle") == ""


def test_everything_behind_the_container_belongs_to_the_executed_command():
    command = parse_command(["exec", "-t", "-e", "A=1", "--env=B=-2", ID, "sh", "--tty", "-c", ""])
    assert command.arguments == ("sh", "--tty", "-c", "")
    assert command.options["env"] == ("A=1", "B=-2")
    changed = command.words(process="/p", env=None, tty=None)
    assert changed == ("exec", "--process=/p", ID)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["init"],
        ["mounts", "add", ID],
        ["createx", ID],
        ["CREATE", ID],
        ["create"],
        ["create", ""],
        ["create", "-"],
        ["create", "a/b"],
        ["create", "../x"],
        ["create", "c\n"],
        ["create", "ä"],
        ["create", ID, "--bundle", "/b"],
        ["create", ID, "more"],
        ["create", "--", ID],
        ["create", "--bundle"],
        ["create", "--bundle", "/a", "--bundle", "/b", ID],
        ["create", "-b", "/a", "--bundle=/b", ID],
        ["create", "--bundle=", ID],
        ["create", "-bundle", "/b", ID],
        ["create", "--b", "/b", ID],
        ["create", "--detach", ID],
        ["create", "--no-new-keyring=false", ID],
        ["create", "--no-pivot", ID],
        ["--criu", "/bin/sh", "create", ID],
        ["create", "--unknown", ID],
        ["--root"],
        ["--root", "", "create", ID],
        ["--root=/a", "--root=/b", "create", ID],
        ["--debug=true", "create", ID],
        ["--debug", "--debug", "create", ID],
        ["-root", "/r", "create", ID],
        ["--bundle=/b", "create", ID],
        ["exec", "--process", "", ID],
        ["exec", "--process", "/a", "-p", "/b", ID],
        ["delete", ID, "-f"],
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(words):
    with pytest.raises(CommandRefused) as refused:
        parse_command(words)
    assert refused.value.code == "runtime-command-refused"
    assert refused.value.remedy


@pytest.mark.parametrize("verb", list(Verb))
def test_flags_are_kept(verb):
    for flag in FLAGS[verb]:
        command = parse_command([verb, flag, ID])
        assert parse_command(command.words()) == command
        assert len(command.options) == 1


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=12), max_size=8))
def test_words_are_read_or_refused_and_what_is_read_is_read_the_same_again(words):
    try:
        command = parse_command(words)
    except CommandRefused:
        return
    again = parse_command([*command.words(), *command.arguments])
    assert again == command


@given(
    st.sampled_from(list(Verb)),
    st.dictionaries(st.sampled_from(["root", "log", "rootless"]), st.text("-=/a ", min_size=1)),
    st.text("-=/a ", min_size=1),
)
def test_values_that_look_like_options_stay_values(verb, options, value):
    before = [word for name, given in options.items() for word in (f"--{name}", given)]
    bundle = [] if verb in {Verb.EXEC, Verb.DELETE} else ["--bundle", value]
    command = parse_command([*before, verb, *bundle, ID])
    assert {name: "".join(found) for name, found in command.global_options.items()} == options
    assert not bundle or command.value("bundle") == value
    assert parse_command(command.words()) == command
