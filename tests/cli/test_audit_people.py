"""``catena audit people``, ``forget`` and names in ``tail``, against a running server."""

from __future__ import annotations

import json

import pytest

from catena.cli.main import run
from catena.errors import ExitCode
from server.live import *  # noqa: F403 - fixtures


@pytest.fixture
def told(capsys):
    def call(*words):
        code = run([*map(str, words)])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def test_people_are_listed_named_and_forgotten(running, keys, told, tmp_path):
    code, out, _ = told("audit", "people", *running.options, "-o", "json")
    (admin,) = json.loads(out)
    assert (code, admin["name"]) == (0, "admin")
    names = tmp_path / "people.json"
    names.write_text(out)
    reading = ("--log", running.folder / "log", "--key", keys.path / "log.pub", "-o", "json")
    mine = ("audit", "tail", *reading, "--match", "actor=admin")
    assert json.loads(told(*mine)[1])["entries"] == []
    entries = json.loads(told(*mine, "--people", names)[1])["entries"]
    assert entries
    assert {one["summary"] for one in entries} == {"admin (admin) signed in"}
    # Somebody with a token is not forgotten, nobody is not known.
    code, _, err = told("audit", "forget", admin["pseudonym"], *running.options)
    assert (code, "person-in-use" in err) == (ExitCode.USAGE, True)
    code, _, err = told("audit", "forget", "person:" + "0" * 64, *running.options)
    assert (code, "unknown-person" in err) == (ExitCode.NOT_FOUND, True)


def test_a_list_that_was_changed_is_refused(running, keys, told, tmp_path):
    out = told("audit", "people", *running.options, "-o", "json")[1]
    names = tmp_path / "people.json"
    reading = (
        "audit",
        "tail",
        "--log",
        running.folder / "log",
        "--key",
        keys.path / "log.pub",
        "--people",
        names,
    )
    code, _, err = told(*reading)
    assert (code, "no-people-file" in err) == (ExitCode.NOT_FOUND, True)
    names.write_text(out.replace('"admin"', '"mallory"'))
    code, _, err = told(*reading)
    assert (code, "person-mismatch" in err) == (ExitCode.UNTRUSTED, True)
    names.write_text("{}")
    assert told(*reading)[0] == ExitCode.MALFORMED
