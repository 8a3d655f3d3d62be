"""``catena server check``: each thing that stops a server is found, all at once, where it is written."""

from __future__ import annotations

import json
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from catena.cli.main import run
from catena.keys import authority
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, write_key
from catena.server.checkup import check
from catena.server.config import BadConfig, load
from catena.server.run import listen
from server.live import *  # noqa: F403 - fixtures
from service.fixtures import make_server, put_secret


@pytest.fixture
def folder(server):
    server.opened.close()
    return server.folder


def edit(folder, old, new):
    path = folder / "server.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def found(folder, at=None):
    """Severity and code of each finding by setting."""
    return {
        one.key: (one.severity, one.code)
        for one in check(folder, at or datetime.now(UTC) + timedelta(hours=2)).findings
    }


def line_of(folder, start):
    lines = (folder / "server.toml").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(start))


def test_a_server_in_order_has_nothing_to_tell_of(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    result = check(folder, datetime.now(UTC) + timedelta(hours=2))
    assert result.findings == ()
    assert result.exit_code == 0
    assert set(result.checked) >= {"settings", "keys", "certificates", "log", "policy", "address"}
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} <= {
        "catena.db-shm",
        "catena.db-wal",
    }


def test_the_secret_of_a_webhook_is_looked_at(folder):
    edit(folder, "exports = []", 'exports = ["webhook https://h/x hook.secret"]')
    assert found(folder)["exports"] == ("error", "missing-key")
    (folder / "hook.secret").write_text("whsec_short")
    (folder / "hook.secret").chmod(0o600)
    assert found(folder)["exports"] == ("error", "bad-webhook-secret")


def test_every_wrong_setting_is_told_with_its_place(folder):
    edit(folder, "interval = 30", "intervall = 30")
    edit(folder, 'mode = "approve"', 'mode = "trust-everyone"')
    edit(folder, "exports = []", 'exports = [\n  "file /x",\n  7,\n]')
    edit(folder, "workers = 4", "workers = 400")
    result = check(folder, datetime.now(UTC))
    told = {one.key: one for one in result.findings}
    assert set(told) == {"intervall", "mode", "exports", "workers"}
    assert told["intervall"].remedy == "Did you mean `interval`?"
    assert (told["intervall"].line, told["intervall"].column) == (line_of(folder, "intervall"), 1)
    assert told["mode"].expected == "one of approve, inventory, open"
    assert told["mode"].got == "'trust-everyone'"
    assert told["mode"].column == len("mode = ") + 1
    assert told["exports"].line == line_of(folder, "exports") + 2
    assert told["exports"].column == 3
    assert (told["workers"].expected, told["workers"].got) == ("int <= 64", "400")
    assert result.exit_code == 2
    assert [one.line for one in result.findings] == sorted(one.line for one in result.findings)


def test_the_start_tells_the_same_of_the_first(folder):
    edit(folder, "interval = 30", "intervall = 30")
    line = line_of(folder, "intervall")
    with pytest.raises(
        BadConfig, match=f"server.toml:{line}:1: `intervall` is no setting; Did you"
    ):
        load(folder)


def test_each_wrong_witness_and_receiver_is_told(folder):
    edit(folder, "exports = []", 'exports = ["pigeon x", "http ftp://x"]')
    edit(folder, "witnesses = []", 'witnesses = ["ftp://x y", "http://127.0.0.1:1 nokey"]')
    result = check(folder, datetime.now(UTC))
    assert [one.key for one in result.findings].count("exports") == 2
    assert [one.key for one in result.findings].count("witnesses") == 2
    assert {one.line for one in result.findings if one.key == "exports"} == {
        line_of(folder, "exports")
    }


def test_a_syntax_fault_and_a_missing_setting_have_places(folder):
    text = (folder / "server.toml").read_text()
    (folder / "server.toml").write_text(text.replace("interval = 30", "interval = "))
    (one,) = check(folder, datetime.now(UTC)).findings
    assert (one.line, one.key) == (line_of(folder, "interval"), None)
    (folder / "server.toml").write_text(text.replace("log_origin =", "# log_origin ="))
    (one,) = check(folder, datetime.now(UTC)).findings
    assert one.message == "`log_origin` is missing"


def test_a_password_in_a_url_is_not_shown(folder):
    edit(folder, 'database = "sqlite:///catena.db"', 'database = ["postgresql://u:hunter2@h/n"]')
    assert "hunter2" not in repr(check(folder, datetime.now(UTC)))
    edit(folder, 'database = ["postgresql://u:hunter2@h/n"]', 'database = "nosuch://u:hunter2@h/n"')
    result = check(folder, datetime.now(UTC))
    assert [one.key for one in result.findings] == ["database"]
    assert "hunter2" not in repr(result)


def test_keys_and_files_that_are_missing_or_open(folder):
    (folder / "nonce.key").unlink()
    (folder / "storage.key").chmod(0o644)
    (folder / "release-0.pub").write_text("no key")
    edit(folder, "/ca.key", "/none.key")
    edit(folder, "ek_roots = []", 'ek_roots = ["software=roots/none.pem", "magic=x"]')
    edit(folder, "# witness_ca =", 'witness_ca = "none.pem"')
    edit(folder, "# passphrase_file =", 'passphrase_file = "none"')
    folder.chmod(0o777)
    result = check(folder, datetime.now(UTC) + timedelta(hours=2))
    told = sorted(f"{one.key} {one.code}" for one in result.findings)
    assert told == sorted(
        [
            *("None open-folder", "None missing-key", "None exposed-key"),
            *("ca_key missing-key", "passphrase_file missing-key", "release_keys unusable-key"),
            *("ek_roots bad-ek-root", "ek_roots bad-ek-root", "witness_ca bad-config"),
        ]
    )
    assert result.exit_code == 14


def test_a_certificate_of_another_key_or_time_or_kind(folder, keys, tmp_path):
    now = datetime.now(UTC) + timedelta(hours=2)
    other = generate_key(KeyAlgorithm.ECDSA_P256)
    write_key(tmp_path / "other.key", other)
    (folder / "tls.crt").write_bytes((keys.path / "ca.crt").read_bytes())
    edit(folder, str(keys.path / "ca.key"), str(tmp_path / "other.key"))
    assert found(folder)["ca_certificate"] == ("error", "mismatched-certificate")
    assert found(folder)[None] == ("error", "mismatched-certificate")
    issued = authority.issue_cluster_ca(
        PrivateKeySigner(other), organisation="Acme", now=now - timedelta(days=10_000)
    )
    (tmp_path / "other.crt").write_bytes(issued.public_bytes(Encoding.PEM))
    edit(folder, str(keys.path / "ca.crt"), str(tmp_path / "other.crt"))
    assert found(folder)["ca_certificate"] == ("error", "expired-certificate")
    before = issued.not_valid_after_utc - timedelta(days=3)
    assert found(folder, before)["ca_certificate"] == ("warning", "expired-certificate")


def test_a_certificate_that_may_not_issue(folder, keys):
    edit(folder, str(keys.path / "ca.crt"), "tls.crt")
    told = [one.code for one in check(folder, datetime.now(UTC)).findings]
    assert "no-authority" in told


def test_names_that_no_certificate_can_have(folder):
    edit(folder, '"localhost"', '"not a name"')
    (one,) = [one for one in check(folder, datetime.now(UTC)).findings if one.key == "names"]
    assert (one.code, one.line) == ("bad-server-name", line_of(folder, "names"))


def test_an_expired_root_of_a_vendor_is_a_warning(folder, tmp_path):
    key = PrivateKeySigner(generate_key(KeyAlgorithm.ECDSA_P256))
    issued = authority.issue_cluster_ca(key, organisation="V", now=datetime(2000, 1, 1, tzinfo=UTC))
    (folder / "roots/0.pem").write_bytes(issued.public_bytes(Encoding.PEM))
    edit(folder, "ek_roots = []", 'ek_roots = ["software=roots/0.pem"]')
    result = check(folder, datetime.now(UTC) + timedelta(hours=2))
    assert [(one.key, one.severity) for one in result.findings] == [("ek_roots", "warning")]
    assert result.exit_code == 0


def test_a_database_that_is_missing_old_or_newer(folder):
    path = folder / "catena.db"
    with sqlite3.connect(path) as file:
        file.execute("UPDATE schema_version SET version = 999")
    file.close()
    assert found(folder)["database"] == ("error", "schema-mismatch")
    with sqlite3.connect(path) as file:
        file.execute("UPDATE schema_version SET version = 4")
        file.execute("DROP TABLE alembic_version")
    file.close()
    assert found(folder)["database"] == ("warning", "schema-steps-pending")
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT version FROM schema_version").fetchone() == (4,)
    file.close()
    path.unlink()
    assert found(folder)["database"] == ("error", "database-missing")


def test_a_log_that_was_rewound_forked_removed_or_is_another(server, tmp_path, keys):
    put_secret(server.service, "a", "web")
    put_secret(server.service, "b", "web")
    server.opened.close()
    folder = server.folder
    assert found(folder) == {}
    shutil.move(folder / "log", tmp_path / "log")
    assert found(folder)["log"] == ("error", "log-missing")
    other = make_server(tmp_path / "other", keys)
    other.opened.close()
    shutil.copytree(tmp_path / "other/log", folder / "log")
    assert found(folder)["log"] == ("error", "log-rewound")
    other.reopen()
    for name in ("a", "b", "c"):
        put_secret(other.service, name, "db")
    other.opened.close()
    shutil.rmtree(folder / "log")
    shutil.copytree(tmp_path / "other/log", folder / "log")
    result = check(folder, datetime.now(UTC) + timedelta(hours=2))
    assert [one.code for one in result.findings] == ["checkpoint-not-contained"]
    assert result.exit_code == 20
    edit(folder, 'log_origin = "acme.example/log"', 'log_origin = "b.example/log"')
    assert found(folder)["log"] == ("error", "log-unremembered")


def test_entries_that_are_committed_and_not_published_are_no_rewind(server):
    put_secret(server.service, "a", "web")
    log = server.folder / "log"
    before = (log / "checkpoint").read_bytes()
    put_secret(server.service, "b", "web")
    written = (log / "write-ahead").read_bytes()
    server.opened.close()
    (log / "checkpoint").write_bytes(before)  # as a crash leaves it
    assert found(server.folder)["log"] == ("error", "log-rewound")
    (log / "write-ahead").write_bytes(written)
    assert found(server.folder) == {}


def test_a_policy_that_nobody_signed(folder):
    with sqlite3.connect(folder / "catena.db") as file:
        file.execute("INSERT INTO policies VALUES (1, 'x', 'y', x'00', 5, 'eve')")
    file.close()
    assert found(folder)["release_keys"] == ("error", "tampered-policy")


def test_an_address_in_use_is_a_warning_and_one_of_another_machine_an_error(folder):
    with listen("127.0.0.1:0") as door:
        edit(folder, "127.0.0.1:0", f"127.0.0.1:{door.getsockname()[1]}")
        assert found(folder) == {"listen": ("warning", "address-in-use")}
    edit(folder, 'listen = "127.0.0.1', 'listen = "192.0.2.1')
    assert found(folder) == {"listen": ("error", "address-unusable")}


def test_a_log_place_without_its_credentials(folder):
    edit(folder, 'log = "log"', 'log = "s3+https://h.example/bucket"')
    assert found(folder)["log"] == ("error", "bad-config")


def test_a_running_server_is_checked_beside_it(running, capsys):
    text = (running.folder / "server.toml").read_text()
    (running.folder / "server.toml").write_text(text.replace(':0"', f':{running.port}"', 1))
    assert run(["server", "check", str(running.folder), "-o", "json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {one["code"] for one in result["findings"]} <= {"address-in-use", "expired-certificate"}
    assert "log" in result["checked"]


def test_the_table_says_where_what_and_what_to_do(folder, capsys):
    edit(folder, "interval = 30", "interval = 0")
    assert run(["server", "check", str(folder)]) == 2
    out = capsys.readouterr().out
    line = line_of(folder, "interval")
    assert out.startswith(
        f"server.toml:{line}:12: error: `interval` has a value that it cannot have "
        "(expected int >= 1, got 0) [bad-config]\n  remedy: "
    )
    assert out.endswith("checked settings: 1 errors, 0 warnings\n")
    assert run(["server", "check", str(folder.parent)]) == 3
