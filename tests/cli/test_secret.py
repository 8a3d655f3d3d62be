from __future__ import annotations

import io
import json
import sys

import pytest

from catena.cli.main import run
from server.live import *  # noqa: F403 - fixtures


class Pipe(io.TextIOWrapper):
    """Standard input that is not a terminal."""


def give(monkeypatch, value: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", Pipe(io.BytesIO(value)))


def test_put_list_and_rm(running, capsys, monkeypatch, tmp_path):
    give(monkeypatch, b"hunter2\n")
    assert run(["secret", "put", "db", "--role", "web", "--role", "db", *running.options]) == 0
    value = tmp_path / "value"
    value.write_bytes(b"\x00\xff")
    words = ["secret", "put", "db", "--role", "web", "--from-file", str(value)]
    assert run([*words, *running.options]) == 0
    capsys.readouterr()
    assert run(["secret", "list", *running.options, "-o", "json"]) == 0
    text = capsys.readouterr().out
    (listed,) = json.loads(text)
    assert (listed["name"], listed["version"], listed["roles"]) == ("db", 2, ["web"])
    assert "hunter2" not in text
    assert run(["secret", "rm", "db", *running.options]) == 0
    assert run(["secret", "rm", "db", *running.options]) == 3
    assert "no-such-secret" in capsys.readouterr().err


def test_a_value_is_never_an_argument():
    from catena.cli.secret import put

    assert {parameter.name for parameter in put.params} >= {"name", "roles", "from_file"}
    assert not {"value", "secret", "token"} & {parameter.name for parameter in put.params}


@pytest.mark.parametrize("value", [b"", b"x" * 1_000_001])
def test_empty_and_huge_values_are_refused_before_anything_is_sent(
    standing, capsys, monkeypatch, value
):
    give(monkeypatch, value)
    assert run(["secret", "put", "db", "--role", "web", *standing.options]) == 2
    assert "bad-secret-size" in capsys.readouterr().err


def test_a_missing_file_and_a_bad_role_are_clear_errors(standing, capsys, monkeypatch):
    words = ["secret", "put", "db", "--role", "web", "--from-file", "/no/such/file"]
    assert run([*words, *standing.options]) == 3
    give(monkeypatch, b"x")
    assert run(["secret", "put", "db", "--role", "a/b", *standing.options]) == 14
    give(monkeypatch, b"x")
    assert run(["secret", "put", "UPPER", "--role", "web", *standing.options]) == 2
    assert "bad-secret-name" in capsys.readouterr().err
