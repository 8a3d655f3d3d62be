from __future__ import annotations

import json

import click
import pytest

from appraise.forged import release_of
from catena.cli.main import run
from catena.formats.references import RELEASE_TYPE
from catena.keys.hierarchy import KeyName
from server.live import *  # noqa: F403 - fixtures
from service.fixtures import signed
from swtpm import needs_swtpm


def test_import_list_and_show(running, keys, boot, capsys, tmp_path):
    document = tmp_path / "release.dsse.json"
    document.write_bytes(signed(keys, RELEASE_TYPE, release_of(boot)))
    assert run(["reference", "list", *running.options]) == 0
    assert "no references" in capsys.readouterr().out
    assert run(["reference", "import", str(document), *running.options]) == 0
    capsys.readouterr()
    assert run(["reference", "list", *running.options, "-o", "json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["kind"]) == ("lab", "release")
    assert run(["reference", "show", "lab-1", *running.options]) == 0
    assert "uki" in capsys.readouterr().out
    assert run(["reference", "show", "nope", *running.options]) == 3


def test_a_document_of_a_stranger_is_refused(standing, keys, boot, capsys, tmp_path):
    document = tmp_path / "release.dsse.json"
    document.write_bytes(signed(keys, RELEASE_TYPE, release_of(boot), KeyName.LOG))
    assert run(["reference", "import", str(document), *standing.options]) == 10
    assert "untrusted-signer" in capsys.readouterr().err


def test_what_is_no_document_is_malformed(standing, capsys, tmp_path):
    document = tmp_path / "x"
    document.write_bytes(b"{}")
    assert run(["reference", "import", str(document), *standing.options]) == 14
    assert run(["reference", "import", str(tmp_path / "none"), *standing.options]) == 3
    assert "no-document" in capsys.readouterr().err


@needs_swtpm
@pytest.mark.tpm
def test_capture_shows_every_event_and_asks(trusting_running, machine, capsys, monkeypatch):
    live = trusting_running
    with live.http() as http:
        call = live.call(http)
        machine.enrol(call)
        machine.attest(call)
    words = ["reference", "capture", machine.node_id[:8], "--name", "ovmf", *live.options]

    def refuse(text, **_):
        raise click.Abort

    monkeypatch.setattr(click, "confirm", refuse)
    assert run(words) == 130
    shown = capsys.readouterr().out
    assert "PCR 0" in shown
    assert run(["reference", "list", *live.options]) == 0
    assert "firmware" not in capsys.readouterr().out
    monkeypatch.setattr(click, "confirm", lambda *_, **__: True)
    assert run(words) == 0
    assert "firmware" in capsys.readouterr().out


def test_capturing_an_unknown_node_is_exit_code_12(standing, capsys):
    assert run(["reference", "capture", "nobody", "--name", "x", "--yes", *standing.options]) == 12
