"""`catena policy` as people and programs see it."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from datetime import UTC, datetime

import pytest

from catena.appraise.facts import FACT_TABLE
from catena.appraise.policy import default_policy_text
from catena.cli.main import run
from catena.cli.policy import MAX_FILE
from catena.errors import FormatError
from catena.formats.policies import PolicyDocument
from catena.formats.references import KeySet, parse_predicate
from catena.keys import hierarchy
from catena.keys.documents import WrongDocument, open_document
from catena.keys.hierarchy import KeyName

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


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("enterprise") / "keys"
    return hierarchy.init(folder, organisation="Example", now=datetime(2026, 1, 2, tzinfo=UTC))


@pytest.fixture
def sign(answer, keys, tmp_path):
    def call(text, *more, name="strict", version=1):
        (tmp_path / "p.cel").write_text(text)
        words = ("--name", name, "--version", version, "--to", tmp_path / "p.json", *more)
        return answer("policy", "sign", tmp_path / "p.cel", "--keys", keys.path, *words)

    return call


def test_a_signed_policy_opens_with_the_release_key_alone(sign, keys, tmp_path):
    digest = hashlib.sha256(default_policy_text().encode()).hexdigest()
    status, said = sign(default_policy_text(), "--previous", "ab" * 32)
    assert (status, said["name"], said["version"], said["sha256"]) == (0, "strict", 1, digest)
    envelope = (tmp_path / "p.json").read_bytes()
    document = open_document(envelope, [keys.public_key(KeyName.RELEASE)], PolicyDocument)
    assert (document.text, document.previous) == (default_policy_text(), "ab" * 32)
    with pytest.raises(WrongDocument):
        open_document(envelope, [keys.public_key(KeyName.RELEASE)], KeySet)


def test_what_check_refuses_is_not_signed(sign, tmp_path):
    status, said = sign(FAULTY)
    assert (status, said["error"]["code"]) == (13, "policy-unknown-fact")
    assert (said["error"]["line"], said["error"]["column"]) == (2, 3)
    assert not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    ("name", "version"), [("Strict", 1), ("", 1), ("strict", 0), ("strict", 2**31)]
)
def test_a_name_or_version_that_no_document_carries_is_wrong_usage(sign, name, version):
    status, said = sign(default_policy_text(), name=name, version=version)
    assert (status, said["error"]["code"]) == (2, "bad-policy-name")


def test_a_signed_policy_is_not_overwritten(sign):
    assert sign(default_policy_text())[0] == 0
    status, said = sign(default_policy_text(), version=2)
    assert (status, said["error"]["code"]) == (2, "key-exists")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b'{"name":"a","version":1}',
        b'{"name":"a","version":0,"text":""}',
        b'{"name":"a","version":1.5,"text":""}',
        b'{"name":"a\\n","version":1,"text":""}',
        b'{"name":"a","version":1,"text":"","more":1}',
        b'{"name":"a","version":1,"text":"","previous":"AB"}',
        b'{"name":"a","version":1,"text":"' + b"x" * 65537 + b'"}',
    ],
)
def test_what_is_no_policy_document_is_refused(raw):
    with pytest.raises(FormatError):
        parse_predicate(raw, PolicyDocument)
