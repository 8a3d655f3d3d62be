"""``catena audit prove``, ``verify`` and ``tail``, over folders and over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from audit_samples import ORIGIN

from catena.audit.folder import LogFolder
from catena.audit.log import TransparencyLog
from catena.audit.tiles import CHECKPOINT
from catena.cli.main import run
from catena.errors import ExitCode
from catena.formats import addcheckpoint, note, tlogproof

SECONDS = 20


@pytest.fixture
def of_five(folder, log, sealed):
    log.append(sealed(5))
    return folder


# prove and verify -------------------------------------------------------------------------------


def test_a_proof_is_written_and_verifies_without_the_log(of_five, url, key, tmp_path, capsys):
    for name, log in (("a", of_five), ("b", url)):
        target = tmp_path / f"{name}.tlog-proof"
        words = ["--log", str(log), "--key", key, "--to", str(target)]
        assert run(["audit", "prove", "1", *words]) == 0
        assert "proof of entry 1" in capsys.readouterr().out
        assert run(["audit", "verify", str(target), "--key", key, "--origin", ORIGIN]) == 0
        said = capsys.readouterr().out
        assert "trusted" in said
        assert said.endswith("verified: entry 1 is in this log\n")
    assert (tmp_path / "a.tlog-proof").read_bytes() == (tmp_path / "b.tlog-proof").read_bytes()


def test_a_proof_can_be_piped(of_five, key, capsysbinary):
    assert run(["audit", "prove", "4", "--log", str(of_five), "--key", key]) == 0
    assert tlogproof.parse(capsysbinary.readouterr().out).index == 4


def test_a_changed_proof_is_inconsistent(of_five, key, tmp_path, answer):
    target = tmp_path / "p"
    assert answer("audit", "prove", 2, "--log", of_five, "--key", key, "--to", target)[0] == 0
    target.write_text(target.read_text().replace("index 2", "index 3"))
    code, told = answer("audit", "verify", target, "--key", key)
    assert (code, told["error"]["code"]) == (ExitCode.LOG_INCONSISTENT, "proof-mismatch")
    target.write_text("nothing")
    assert answer("audit", "verify", target, "--key", key)[0] == ExitCode.MALFORMED


def test_an_existing_file_is_not_overwritten(of_five, key, tmp_path, answer):
    target = tmp_path / "p"
    target.write_text("mine")
    assert answer("audit", "prove", 2, "--log", of_five, "--key", key, "--to", target)[0] != 0
    assert target.read_text() == "mine"


def test_growth_is_proven_as_witnesses_take_it(*, of_five, log, key, sealed, tmp_path, answer):
    old = tmp_path / "old"
    shutil.copy(of_five / "checkpoint", old)
    log.append(sealed(9)[5:])
    code, told = answer("audit", "prove", "--from", old, "--log", of_five, "--key", key)
    assert (code, told["old_size"], told["size"]) == (0, 5, 9)
    assert addcheckpoint.parse(told["text"].encode()).old_size == 5
    assert run(["audit", "prove", "--log", str(of_five), "--key", key]) == ExitCode.USAGE
    other = TransparencyLog.create(tmp_path / "other", ORIGIN, log._signer)
    other.append(sealed(9)[1:8])
    other.close()
    code, told = answer("audit", "prove", "--from", old, "--log", tmp_path / "other", "--key", key)
    assert code == ExitCode.LOG_INCONSISTENT


def test_entry_that_is_not_there(of_five, key, answer):
    code, told = answer("audit", "prove", 5, "--log", of_five, "--key", key)
    assert (code, told["error"]["code"]) == (ExitCode.NOT_FOUND, "no-such-entry")


def test_a_url_is_verified_like_a_folder(of_five, url, key, answer):
    code, local = answer("audit", "verify", of_five, "--key", key, "--entries")
    assert code == 0
    assert answer("audit", "verify", url, "--key", key, "--entries") == (0, local)


def test_full_tiles_of_a_url_are_kept_and_read_once(
    *, log, folder, url, key, sealed, tmp_path, answer
):
    log.append(sealed(300))
    keep = tmp_path / "keep"
    assert answer("audit", "verify", url, "--key", key, "--keep", keep)[0] == 0
    kept = {str(path.relative_to(keep)) for path in keep.rglob("*") if path.is_file()}
    assert kept == {"tile/0/000", "tile/entries/000"}
    (folder / "tile/entries/000").unlink()
    assert answer("audit", "verify", url, "--key", key, "--keep", keep)[0] == 0
    code, told = answer("audit", "verify", url, "--key", key)
    assert (code, told["error"]["code"]) == (ExitCode.LOG_INCONSISTENT, "tile-missing")


def test_what_was_verified_is_remembered(*, of_five, log, url, key, sealed, tmp_path, answer):
    seen = tmp_path / "seen"
    for place in (of_five, url):
        seen.unlink(missing_ok=True)
        words = ("audit", "verify", place, "--key", key, "--remember", seen)
        assert answer(*words)[1]["remembered"] == 0
        size = log.size
        log.append(sealed(size + 3)[size:])
        code, told = answer(*words)
        assert (code, told["remembered"], told["size"]) == (0, size, size + 3)
        assert answer(*words)[1]["remembered"] == size + 3


def test_what_is_remembered_is_what_was_verified(
    *, of_five, log, key, sealed, tmp_path, answer, monkeypatch
):
    """Also while the log grows: the checkpoint is read once."""
    seen, read = tmp_path / "seen", LogFolder.read

    def growing(folder, name, limit):
        content = read(folder, name, limit)
        if name == CHECKPOINT and log.size == 5:
            log.append(sealed(7)[5:])
        return content

    monkeypatch.setattr(LogFolder, "read", growing)
    code, told = answer("audit", "verify", of_five, "--key", key, "--remember", seen)
    assert (code, told["size"], log.size) == (0, 5, 7)
    assert note.parse_checkpoint(note.parse(seen.read_bytes()).text).size == 5


@pytest.mark.parametrize(("leaves", "code"), [(4, "log-rewound"), (7, "log-forked")])
def test_another_past_is_inconsistent_and_not_remembered(
    *, of_five, key, signer, sealed, tmp_path, answer, leaves, code
):
    seen = tmp_path / "seen"
    assert answer("audit", "verify", of_five, "--key", key, "--remember", seen)[0] == 0
    before = seen.read_bytes()
    other = TransparencyLog.create(tmp_path / "other", ORIGIN, signer)
    other.append(sealed(20)[10 : 10 + leaves])
    other.close()
    for verb in (
        ("verify", tmp_path / "other", "--remember", seen),
        ("tail", "--log", tmp_path / "other", "--state", seen),
    ):
        got, told = answer("audit", *verb, "--key", key)
        assert (got, told["error"]["code"]) == (ExitCode.LOG_INCONSISTENT, code)
        assert seen.read_bytes() == before


def test_a_log_that_does_not_answer_is_told(key, answer):
    code, told = answer("audit", "verify", "http://127.0.0.1:9", "--key", key)
    assert code == ExitCode.INTERNAL
    assert told["error"]["code"] == "log-unreachable"


# tail -------------------------------------------------------------------------------------------


def test_tail_goes_on_where_it_was(*, of_five, log, url, key, sealed, tmp_path, answer):
    words = ("audit", "tail", "--log", url, "--key", key, "--state", tmp_path / "seen")
    code, told = answer(*words)
    assert (code, [one["index"] for one in told["entries"]]) == (0, [0, 1, 2, 3, 4])
    log.append(sealed(7)[5:])
    assert [one["index"] for one in answer(*words)[1]["entries"]] == [5, 6]
    assert answer(*words)[1]["entries"] == []


@pytest.mark.parametrize(
    ("match", "indices"),
    [
        (["kind=verdict"], [1]),
        (["node=n1"], [1, 2]),
        (["kind=verdict", "node=n2"], []),
        (["summary=until"], [2]),
    ],
)
def test_tail_filters(of_five, key, answer, match, indices):
    rules = [word for rule in match for word in ("--match", rule)]
    told = answer("audit", "tail", "--log", of_five, "--key", key, *rules)[1]
    assert [one["index"] for one in told["entries"]] == indices


@pytest.mark.parametrize("rule", ["kind", "colour=red", "=x"])
def test_a_filter_that_means_nothing_is_refused(of_five, key, rule):
    words = ["audit", "tail", "--log", str(of_five), "--key", key, "--match", rule]
    assert run(words) == ExitCode.USAGE


def follower(folder, key, *more):
    words = ["audit", "tail", "-f", "--every", "0.1", "--log", str(folder), "--key", key, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "catena.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_tail_follows_a_growing_log_and_stops_when_told(of_five, log, key, sealed):
    with follower(of_five, key, "-o", "json") as process:
        indices = [json.loads(process.stdout.readline())["index"] for _ in range(5)]
        log.append(sealed(6)[5:])
        indices.append(json.loads(process.stdout.readline())["index"])
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    assert indices == [0, 1, 2, 3, 4, 5]
    assert (process.returncode, errors) == (0, "")


def test_tail_rides_out_a_server_that_is_away_and_ends_when_the_log_lies(
    of_five, key, signer, sealed
):
    away = of_five.with_name("away")
    other = TransparencyLog.create(of_five.with_name("other"), ORIGIN, signer)
    other.append(sealed(20)[10:17])
    other.close()
    with follower(of_five, key) as process:
        for _ in range(5):
            process.stdout.readline()
        of_five.rename(away)
        assert "waiting" in process.stderr.readline()
        of_five.with_name("other").rename(of_five)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == ExitCode.LOG_INCONSISTENT
    assert "log-forked" in errors
