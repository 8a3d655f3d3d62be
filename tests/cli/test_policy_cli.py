"""`catena policy` as people and programs see it."""

from __future__ import annotations

import hashlib
import io
import json
import sys

import pytest

from catena.appraise.facts import FACT_TABLE
from catena.appraise.policy import default_policy_text
from catena.cli.main import run
from catena.cli.policy import MAX_FILE

FAULTY = "[one] it holds\n  nosuch\n[two] it holds\n  secure_boot &&\n"


@pytest.fixture
def answer(capsys):
    def call(*words):
        status = run([str(word) for word in (*words, "-o", "json")])
        return status, json.loads(capsys.readouterr().out)

    return call


def test_a_sound_policy_is_exit_code_0_with_its_clauses_and_digest(answer, tmp_path):
    (tmp_path / "p.cel").write_text(default_policy_text())
    status, said = answer("policy", "check", tmp_path / "p.cel")
    assert (status, said["errors"]) == (0, [])
    assert said["sha256"] == hashlib.sha256(default_policy_text().encode()).hexdigest()
    assert said["clauses"][0]["name"] == "secure-boot"


def test_every_error_is_told_with_line_and_column(answer, tmp_path):
    (tmp_path / "p.cel").write_text(FAULTY)
    status, said = answer("policy", "check", tmp_path / "p.cel")
    assert status == 13
    places = [(one["code"], one["line"], one["column"]) for one in said["errors"]]
    assert places == [("policy-unknown-fact", 2, 3), ("policy-syntax", 4, 17)]
    assert all(one["message"] and one["remedy"] for one in said["errors"])


def test_errors_are_printed_as_editors_read_them(tmp_path, capsys):
    file = tmp_path / "p.cel"
    file.write_text(FAULTY)
    assert run(["policy", "check", str(file)]) == 13
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"{file}:2:3: clause one names an unknown fact: nosuch [policy-unknown-fact]"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "policy-empty"),
        (b"\xff\xfe", "policy-syntax"),
        (b"[only] it holds\n  reset_count >= 0\n", "policy-always-true"),
        (b"/" * (MAX_FILE + 1), "policy-syntax"),
    ],
)
def test_what_is_no_policy_is_exit_code_13_from_standard_input(answer, monkeypatch, content, code):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    status, said = answer("policy", "check", "-")
    assert (status, [one["code"] for one in said["errors"]]) == (13, [code])


def test_a_file_that_is_not_there_is_exit_code_3(answer, tmp_path):
    status, said = answer("policy", "check", tmp_path / "none")
    assert (status, said["error"]["code"]) == (3, "no-such-file")


def test_the_facts_are_listed(answer, capsys):
    status, said = answer("policy", "facts")
    assert (status, [one["name"] for one in said]) == (0, [row.name for row in FACT_TABLE])
    assert run(["policy", "facts"]) == 0
    assert "list(string)" in capsys.readouterr().out


def test_the_shipped_policy_is_printed_as_it_is(capsys):
    assert run(["policy", "default"]) == 0
    assert capsys.readouterr().out == default_policy_text()
