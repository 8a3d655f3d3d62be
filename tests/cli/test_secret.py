from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from catena.cli.main import run
from server.live import *  # noqa: F403 - fixtures
from softhsm import *  # noqa: F403 - fixtures
from softhsm import needs_softhsm


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
    assert run(["secret", "rm", "db", "--version", "2", *running.options]) == 2
    assert run(["secret", "rm", "db", "--version", "1", *running.options]) == 0
    assert capsys.readouterr().out == "removed db version 1\n"
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


def test_a_value_is_shown_only_on_request_and_never_on_a_terminal_by_accident(
    running, capsysbinary, monkeypatch
):
    give(monkeypatch, b"\x00hunter2\n")
    words = ["--role", "web", "--label", "rack=7", *running.options]
    assert run(["secret", "put", "db", *words]) == 0
    assert run(["secret", "show", "db", *running.options]) == 0
    shown = capsysbinary.readouterr().out
    assert b"hunter2" not in shown
    assert b"rack=7" in shown
    assert run(["secret", "get", "db", *running.options]) == 0
    assert capsysbinary.readouterr().out == b"\x00hunter2\n"
    assert run(["secret", "get", "db", "--version", "1", *running.options, "-o", "json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["value"] == "AGh1bnRlcjIK"
    assert run(["secret", "get", "db", "--version", "2", *running.options]) == 3
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(["secret", "get", "db", *running.options]) == 2
    assert b"secret-on-terminal" in capsysbinary.readouterr().err
    assert run(["secret", "get", "db", "--show", *running.options]) == 0
    assert b"hunter2" in capsysbinary.readouterr().out


def test_a_secret_for_every_node_is_refused(standing, capsys, monkeypatch):
    give(monkeypatch, b"x")
    assert run(["secret", "put", "db", *standing.options]) == 2
    assert "no-audience" in capsys.readouterr().err


def test_another_storage_key_from_the_command_line(running, capsys, monkeypatch):
    give(monkeypatch, b"hunter2")
    assert run(["secret", "put", "db", "--role", "web", *running.options]) == 0
    capsys.readouterr()
    assert run(["server", "rotate-kek", str(running.folder), "-o", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert Path(made["file"]).stat().st_mode & 0o777 == 0o600
    assert run(["secret", "rekey", made["kek"], *running.options]) == 0
    said = capsys.readouterr().out
    assert "1 were moved" in said
    assert "delete its file" in said
    assert run(["secret", "rekey", made["kek"], *running.options]) == 0
    assert "0 were moved" in capsys.readouterr().out
    assert run(["secret", "rekey", "0" * 16, *running.options]) == 3
    assert "unknown-kek" in capsys.readouterr().err


@needs_softhsm
def test_a_storage_key_on_a_token_from_the_command_line(running, softhsm, capsys, monkeypatch):
    give(monkeypatch, b"hunter2")
    assert run(["secret", "put", "db", "--role", "web", *running.options]) == 0
    capsys.readouterr()
    words = ["server", "rotate-kek", str(running.folder), "-o", "json", "--key"]
    assert run([*words, softhsm.uri("kek")]) == 0
    made = json.loads(capsys.readouterr().out)
    assert Path(made["file"]).read_text() == softhsm.uri("kek") + "\n"
    assert run(["secret", "rekey", made["kek"], *running.options]) == 0
    assert "1 were moved" in capsys.readouterr().out
    assert run(["secret", "get", "db", "--show", *running.options]) == 0
    assert "hunter2" in capsys.readouterr().out
    assert run([*words, softhsm.uri("loose")]) == 1
    assert "kek-unusable" in capsys.readouterr().out
    assert run([*words, "pkcs11:token=t;object=k?pin-value=1234"]) == 14
    assert "1234" not in capsys.readouterr().out
