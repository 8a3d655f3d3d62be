from __future__ import annotations

import json
import zipfile

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
    assert "with catena" in capsys.readouterr().out
    assert run(["reference", "import", str(document), *running.options]) == 0
    capsys.readouterr()
    assert run(["reference", "list", *running.options, "-o", "json"]) == 0
    listed, *rules = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["kind"]) == ("lab", "release")
    assert rules
    assert all(one["kind"] == "quirk" for one in rules)
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


POLICY = {"8": {"asciivalues": [{"prefix": "grub_cmd", "values": [{"value": "set .+"}]}]}}


def test_a_pcr_policy_is_imported_as_json_or_zip_with_its_warnings(running, capsys, tmp_path):
    plain, packed = tmp_path / "grub_commands.config", tmp_path / "pcr_policy.zip"
    plain.write_text(json.dumps(POLICY))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(plain, plain.name)
    for version, file in enumerate((plain, packed)):
        words = [str(file), "--name", "flatcar", "--version", str(version), *running.options]
        assert run(["reference", "import", *words]) == 0
        shown = capsys.readouterr().out
        assert "pcr-policy" in shown
        assert "warning: flatcar: 8.ascii.0 now has to match the whole text: set .+" in shown
    assert run(["reference", "list", *running.options, "-o", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["kind"], one["version"]) for one in listed[:2]] == [
        ("pcr-policy", "0"),
        ("pcr-policy", "1"),
    ]
    assert run(["reference", "show", "flatcar-1", *running.options]) == 0
    assert "grub_cmd /set .+/" in capsys.readouterr().out


def test_a_name_belongs_to_a_pcr_policy_alone(standing, keys, boot, capsys, tmp_path):
    policy, release = tmp_path / "p.json", tmp_path / "release.dsse.json"
    policy.write_text(json.dumps(POLICY))
    release.write_bytes(signed(keys, RELEASE_TYPE, release_of(boot)))
    for words in (
        [str(policy)],
        [str(policy), "--name", "flatcar"],
        [str(release), "--name", "lab", "--version", "2"],
    ):
        assert run(["reference", "import", *words, *standing.options]) == 2
        assert "misnamed-import" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (("set .+", "(?=a)"), "pcr-policy-pattern"),
        (("asciivalues", "values"), "pcr-policy-malformed"),
        (('"asciivalues"', '"binaryvalues": [], "asciivalues": [], "rawvalues"'), "malformed"),
        (('"8"', '"7"'), "reference-unusable"),
    ],
)
def test_a_pcr_policy_that_cannot_count_is_malformed(standing, capsys, tmp_path, changed, code):
    policy = tmp_path / "p.json"
    policy.write_text(json.dumps(POLICY).replace(*changed))
    words = [str(policy), "--name", "flatcar", "--version", "1", *standing.options]
    assert run(["reference", "import", *words]) == 14
    assert code in capsys.readouterr().err
