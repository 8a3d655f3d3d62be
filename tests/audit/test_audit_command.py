"""``catena audit verify`` as its users see it: transcripts and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from audit_samples import NODE, NOON, ORIGIN

from catena.audit.entries import Revocation
from catena.audit.leaf import seal_entry
from catena.cli.main import run
from catena.errors import ExitCode
from catena.keys.signer import KeyAlgorithm, generate_key, public_pem


@pytest.fixture
def folder_of_five(folder, log, sealed):
    log.append(sealed(5))
    log.close()
    return str(folder)


def test_a_whole_log_prints_what_is_in_it(folder_of_five, key, capsys):
    assert run(["audit", "verify", folder_of_five, "--key", key, "--origin", ORIGIN]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        f"log      {ORIGIN}",
        "entries  5",
        "         1 certificate",
        "         1 denial",
        "         2 enrolment",
        "         1 verdict",
    ]
    assert lines[6].startswith("root     ")
    assert lines[7:] == ["verified: every entry is signed, every tile leads to the signed root"]


def test_json_holds_the_same(folder_of_five, key, capsys):
    assert run(["audit", "verify", folder_of_five, "--key", key, "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document.pop("root")) == 64
    assert document == {
        "origin": ORIGIN,
        "size": 5,
        "kinds": {"certificate": 1, "denial": 1, "enrolment": 2, "verdict": 1},
        "set_aside": 0,
    }


def test_entries_are_listed_on_request(folder_of_five, key, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert run(["audit", "verify", folder_of_five, "--key", key, "--entries"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["index", "at", "kind", "node", "summary"]
    assert lines[2].split() == [
        "1", "2026-03-01", "12:00:01Z", "verdict", "n1", "trusted",
    ]  # fmt: skip
    assert run(["audit", "verify", folder_of_five, "--key", key, "--entries", "-o", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)["entries"]
    assert listed[1] == {
        "index": 1,
        "at": "2026-03-01T12:00:01Z",
        "kind": "verdict",
        "node": "n1",
        "actor": NODE,
        "summary": "trusted",
    }
    assert listed[3]["node"] is None  # a denial's node is only a claim


def test_nothing_in_an_entry_commands_the_terminal(
    *, folder, log, key, signer, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "160")
    entry = Revocation(at=NOON, actor="a", node_id=NODE, reason="\x1b[2Jgone\n\u202e")
    log.append([seal_entry(signer, entry)])
    log.close()
    assert run(["audit", "verify", str(folder), "--key", key, "--entries"]) == 0
    shown = capsys.readouterr().out
    assert "\\x1b[2Jgone\\n\\u202e" in shown
    assert "\x1b" not in shown


def test_a_changed_byte_exits_20_and_names_file_and_entry(
    folder, folder_of_five, key, sealed, capsys
):
    bundle = folder / "tile/entries/000.p/5"
    content = bytearray(bundle.read_bytes())
    content[len(sealed(1)[0]) + 100] ^= 1
    bundle.write_bytes(content)
    assert run(["audit", "verify", folder_of_five, "--key", key]) == ExitCode.LOG_INCONSISTENT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: tile/entries/000.p/5, entry 1: ")
    assert "remedy: Do not trust this log." in err
    assert run(["audit", "verify", folder_of_five, "--key", key, "-o", "json"]) == 20
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["file"], error["entry"]) == ("tile/entries/000.p/5", 1)


@pytest.mark.parametrize(
    ("option", "value"), [("--origin", "log.example.org/other"), ("--origin", "")]
)
def test_another_origin_exits_20(folder_of_five, key, option, value):
    assert run(["audit", "verify", folder_of_five, "--key", key, option, value]) == 20


def test_another_key_exits_20(folder_of_five, tmp_path, stranger):
    path = tmp_path / "other.pub"
    path.write_bytes(public_pem(stranger.public_key))
    assert run(["audit", "verify", folder_of_five, "--key", str(path)]) == 20


def test_what_is_not_there_exits_3(tmp_path, folder_of_five, key, capsys):
    assert run(["audit", "verify", str(tmp_path / "nowhere"), "--key", key]) == 3
    assert run(["audit", "verify", folder_of_five, "--key", str(tmp_path / "nowhere")]) == 3


def test_a_key_of_another_kind_exits_2_and_no_key_at_all_14(tmp_path, folder_of_five, capsys):
    path = tmp_path / "key.pub"
    path.write_bytes(public_pem(generate_key(KeyAlgorithm.ECDSA_P256).public_key()))
    assert run(["audit", "verify", folder_of_five, "--key", str(path)]) == ExitCode.USAGE
    path.write_text("not a key")
    assert run(["audit", "verify", folder_of_five, "--key", str(path)]) == ExitCode.MALFORMED


def test_help_names_the_exit_codes_and_an_example(capsys):
    assert run(["audit", "verify", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "log inconsistent" in shown
    assert "--key log.pub" in shown


@pytest.mark.parametrize(
    "words",
    [["verify"], ["search", "--node", "n1"], ["tail", "--log"], ["prove", "1", "--log"]],
    ids=lambda words: words[0],
)
def test_reading_a_log_loads_no_library_of_the_server(folder_of_five, key, words):
    """They would make each command start several times slower."""
    code = (
        "import sys; from catena.cli.main import run; code = run(sys.argv[1:]);"
        "sys.exit(code or sorted({'sqlalchemy', 'asn1crypto', 'httpx'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "audit", *words, folder_of_five, "--key", key],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
