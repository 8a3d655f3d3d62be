"""`catena eventlog` as people and programs see it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from catena.cli import eventlog
from catena.cli.main import run
from small_logs import CEL_JSON, IMA_TEXT

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
BOOT = CORPUS / "boots/B_sb_own_uki"

needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")


@pytest.fixture
def answer(capsys):
    def call(*words):
        status = run([str(word) for word in (*words, "-o", "json")])
        return status, json.loads(capsys.readouterr().out)

    return call


@needs_corpus
def test_replay_prints_what_the_tpm_held(answer):
    status, said = answer("eventlog", "replay", BOOT / "eventlog.bin")
    held = json.loads((BOOT / "state.json").read_text())["pcrs"]
    assert status == 0
    assert set(said) == {
        *("format", "banks", "startup_locality", "events", "pcrs", "opaque_events"),
    }
    assert (said["format"], said["banks"]) == ("tcg2", list(said["pcrs"]))
    for bank, values in said["pcrs"].items():
        assert values == {pcr: held[bank][pcr] for pcr in values}


def test_replay_reads_standard_input(answer, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(IMA_TEXT)))
    status, said = answer("eventlog", "replay", "-")
    assert (status, said["format"], said["events"]) == (0, "ima", 2)


def test_replay_prints_a_table(tmp_path, capsys):
    (tmp_path / "log").write_bytes(CEL_JSON)
    assert run(["eventlog", "replay", str(tmp_path / "log")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("format            cel\nevents            4, 0 of them opaque\n")
    assert "\nsha256\n  PCR 11  " in told


@pytest.mark.parametrize("content", [b"", b"no log at all, but long enough for a header of one"])
def test_what_is_no_log_is_exit_code_14_with_an_offset(answer, tmp_path, content):
    (tmp_path / "log").write_bytes(content)
    status, said = answer("eventlog", "replay", tmp_path / "log")
    assert status == 14
    assert {"code", "message", "offset", "remedy"} <= set(said["error"])
    assert said["error"]["code"] == "not-a-log"


def test_a_file_that_is_not_there_is_exit_code_3(answer, tmp_path):
    status, said = answer("eventlog", "replay", tmp_path / "log")
    assert (status, said["error"]["code"]) == (3, "no-such-file")


def test_a_file_that_is_too_large_is_refused_before_it_is_read(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(eventlog, "MAX_FILE", 10)
    (tmp_path / "log").write_bytes(IMA_TEXT)
    status, said = answer("eventlog", "replay", tmp_path / "log")
    assert (status, said["error"]["code"]) == (14, "log-too-large")
