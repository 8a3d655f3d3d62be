from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from catena.audit.verify import verify_folder
from catena.cli.main import run
from catena.keys.hierarchy import KeyName
from server.live import *  # noqa: F403 - fixtures

SCHEMAS = Path(__file__).parents[1] / "store/schemas"


def init(folder, keys, *more: str) -> int:
    return run(["server", "init", str(folder), "--keys", str(keys.path), *more])


def test_init_prints_the_token_once_and_says_what_to_do_next(tmp_path, keys, capsys):
    assert init(tmp_path / "s", keys) == 0
    text = capsys.readouterr().out
    assert text.count("catena_") == 1
    assert f"catena server run {tmp_path / 's'}" in text
    assert "https://localhost:8440" in text


def test_init_as_json_is_one_document_with_the_token(tmp_path, keys, capsys):
    options = ("--listen", "0.0.0.0:9000", "--name", "trust.acme.example", "--mode", "open")
    assert init(tmp_path / "s", keys, *options, "-o", "json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["url"] == "https://trust.acme.example:9000"
    assert made["mode"] == "open"
    assert made["admin_token"].startswith("catena_")
    summary = verify_folder(tmp_path / "s/log", keys.public_key(KeyName.LOG))
    assert summary.kinds == {"admin-token": 1}


def test_init_refuses_an_existing_folder(tmp_path, keys, capsys):
    assert init(tmp_path / "s", keys) == 0
    assert init(tmp_path / "s", keys) == 2
    assert "server-exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "exit_code", "code"),
    [
        (("--listen", "nowhere"), 2, "bad-config"),
        (("--name", "not a name"), 2, "bad-server-name"),
        (("--ek-roots", "magic=x.pem"), 2, "bad-ek-root"),
        (("--trust-domain", "a/b"), 2, "bad-config"),
        (("--mode", "trust-everyone"), 2, "usage"),
        (("--interval", "0"), 2, "usage"),
    ],
)
def test_init_refuses_what_makes_no_sense(*, tmp_path, keys, capsys, options, exit_code, code):
    assert init(tmp_path / "s", keys, *options, "-o", "json") == exit_code
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert list(tmp_path.iterdir()) == []


def test_init_without_keys_or_with_exposed_ones_is_refused(tmp_path, keys, capsys):
    assert run(["server", "init", str(tmp_path / "s"), "--keys", str(tmp_path)]) == 3
    assert "no-key-folder" in capsys.readouterr().err
    path = keys.path / "ca.key"
    path.chmod(0o644)
    try:
        assert init(tmp_path / "s", keys) == 10
    finally:
        path.chmod(0o600)
    assert "exposed-key" in capsys.readouterr().err


def test_run_refuses_what_is_no_server(tmp_path, capsys):
    assert run(["server", "run", str(tmp_path)]) == 3
    assert "no-server-folder" in capsys.readouterr().err


def test_run_refuses_a_database_of_another_version(server, capsys):
    import sqlite3

    server.opened.close()
    with sqlite3.connect(server.folder / "catena.db") as other:
        other.execute("UPDATE schema_version SET version = 999")
    other.close()
    assert run(["server", "run", str(server.folder)]) == 1
    assert "schema-mismatch" in capsys.readouterr().err


def test_migrate_says_the_steps_and_takes_them(server, capsys):
    import sqlite3

    server.opened.close()
    folder = str(server.folder)
    assert run(["server", "migrate", folder, "--dry-run"]) == 0
    assert "is of this version" in capsys.readouterr().out
    database = server.folder / "catena.db"
    database.unlink()
    with sqlite3.connect(database) as other:
        other.executescript((SCHEMAS / "4-sqlite.sql").read_text())
        other.execute("INSERT INTO schema_version VALUES (1, 4)")
    other.close()
    assert run(["server", "migrate", folder, "--dry-run", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["steps"][0]["version"], told["taken"]) == (5, False)
    assert run(["server", "migrate", folder]) == 0
    assert "batches and its files have tables" in " ".join(capsys.readouterr().out.split())
    assert run(["server", "migrate", folder, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"steps": [], "taken": True}


def test_the_profile_holds_no_secret(server):
    text = (server.folder / "admin.toml").read_text()
    assert server.token not in text
    assert stat.S_IMODE((server.folder / "admin.toml").stat().st_mode) == 0o644
