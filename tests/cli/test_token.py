"""``catena token`` as a person uses it, against a running server and in its folder."""

from __future__ import annotations

import json

import pytest

from catena.cli.main import run
from catena.cli.token import BadDuration, duration
from server.live import *  # noqa: F403 - fixtures
from service.fixtures import make_server


def test_create_list_use_and_remove(running, capsys, tmp_path):
    words = ["token", "create", "alice", "--role", "auditor", "--expires", "8h"]
    assert run([*words, *running.options, "-o", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert run([*words, *running.options]) == 2
    assert "label-taken" in capsys.readouterr().err

    hers = tmp_path / "alice"
    hers.write_text(made["token"])
    hers.chmod(0o600)
    options = [*running.options[:4], "--token-file", str(hers)]
    assert run(["token", "list", *options]) == 0
    table = capsys.readouterr().out
    assert "alice" in table
    assert made["token"] not in table
    assert run(["token", "create", "bob", "--role", "viewer", *options]) == 10
    assert run(["token", "remove", "alice", *running.options]) == 0
    assert run(["token", "list", *options]) == 10
    assert run(["token", "remove", "alice", *running.options]) == 3


def test_a_scope_is_named_right_by_right(running, capsys):
    words = ["token", "create", "w", "--role", "viewer", *running.options]
    assert run([*words, "--scope", "nodes:read", "--scope", "policy:read"]) == 0
    assert "scope    nodes:read policy:read" in capsys.readouterr().out
    assert run([*words, "--scope", "tokens:write"]) == 2
    assert run([*words, "--scope", "log:read"]) == 2
    assert "useless-scope" in capsys.readouterr().err


def test_who_owns_the_folder_needs_no_token(tmp_path, keys, capsys):
    server = make_server(tmp_path / "server", keys)
    words = ["token", "create", "rescue", "--role", "admin", "--folder", str(server.folder)]
    assert run(words) != 0  # the log is in use
    server.opened.close()
    assert run([*words, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["view"]["label"] == "rescue"
    assert run(["token", "remove", "admin", "--folder", str(server.folder)]) == 0
    assert run(["token", "list", "--folder", str(server.folder)]) == 0
    assert run(["token", "create", "A B", "--role", "admin", *words[-2:]]) == 14
    server.reopen()
    made = [one for one in server.entries() if one.kind == "admin-token"]
    assert [(server.name(one.label), one.actor) for one in made] == [
        ("admin", "server"),
        ("rescue", "server"),
        ("admin", "server"),
    ]
    server.opened.close()


@pytest.mark.parametrize("text", ["", "0d", "-1d", "1", "1y", "1.5h", " 1h", "1h ", "9999999d"])
def test_a_duration_is_a_number_and_a_unit(text):
    assert [duration(one) for one in ("30m", "8h", "90d")] == [1800, 28_800, 7_776_000]
    with pytest.raises(BadDuration):
        duration(text)
