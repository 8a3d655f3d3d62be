"""``catena policy apply`` and ``show``, against a running server."""

from __future__ import annotations

import json

import pytest

from catena.appraise.policy import default_policy_text
from catena.cli.main import run
from catena.formats.policies import POLICY_TYPE, PolicyDocument
from catena.keys.hierarchy import KeyName
from server.live import *  # noqa: F403 - fixtures
from service.fixtures import signed


@pytest.fixture
def write(keys, tmp_path):
    def write_policy(version, text, signer=KeyName.RELEASE):
        document = PolicyDocument(name="strict", version=version, text=text)
        path = tmp_path / f"{version}-{signer}.dsse.json"
        path.write_bytes(signed(keys, POLICY_TYPE, document, signer))
        return str(path)

    return write_policy


def shown(options, capsys):
    assert run(["policy", "show", *options, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_policy_is_applied_and_shown_with_who_applied_it(running, write, capsys):
    before = shown(running.options, capsys)
    assert (before["current"]["name"], before["current"]["version"]) == ("default", 0)
    assert before["current"]["text"] == default_policy_text()

    text = default_policy_text() + "// ours\n"
    assert run(["policy", "apply", write(2, text), *running.options]) == 0
    capsys.readouterr()
    after = shown(running.options, capsys)
    assert (after["current"]["version"], after["current"]["text"]) == (2, text)
    assert after["current"]["applied_by"]
    assert after["history"] == [before["current"]]

    assert run(["policy", "show", *running.options]) == 0
    assert after["current"]["applied_by"] in capsys.readouterr().out
    assert run(["policy", "apply", write(1, text), *running.options]) == 13
    assert "policy-rollback" in capsys.readouterr().err
    assert shown(running.options, capsys) == after


def test_a_policy_of_a_stranger_is_refused(running, write, capsys):
    before = shown(running.options, capsys)
    path = write(1, default_policy_text(), KeyName.LOG)
    assert run(["policy", "apply", path, *running.options]) == 10
    assert "untrusted-signer" in capsys.readouterr().err
    assert shown(running.options, capsys) == before


def test_a_policy_that_says_nothing_is_refused(running, write, capsys):
    assert run(["policy", "apply", write(1, "// nothing\n"), *running.options]) == 13
    assert "policy-empty" in capsys.readouterr().err
