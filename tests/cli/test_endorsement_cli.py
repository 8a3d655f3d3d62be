"""``catena endorsement`` against a running server."""

from __future__ import annotations

import json
import zipfile

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from catena.cli.endorsement import _render_progress
from catena.cli.main import run
from catena.server import endorsement_files
from catena.server.endorsement_files import NoBundle, batches, gather
from catena.service.views import ChangedAuthority, EndorsementItem, RejudgingView
from server.live import *  # noqa: F403 - fixtures
from service.vendor import Authority


@pytest.fixture(scope="module")
def vendor(tmp_path_factory):
    """A vendor's bundle as a folder: two roots in one PEM, an intermediate in DER, a list."""
    folder = tmp_path_factory.mktemp("vendor") / "TrustedTpm"
    (folder / "Acme" / "IntermediateCA").mkdir(parents=True)
    one, two = Authority("Acme TPM Root CA 1"), Authority("Acme TPM Root CA 2")
    (folder / "Acme" / "roots.pem").write_bytes(b"# Acme's roots\n" + one.pem + b"\n" + two.pem)
    below = Authority("Acme EK CA 7", above=one)
    (folder / "Acme" / "IntermediateCA" / "ek7.CER").write_bytes(below.der)
    (folder / "Acme" / "one.crl").write_bytes(one.crl(5, 6, encoding=Encoding.PEM))
    (folder / "README.txt").write_text("not a certificate")
    return folder


def test_a_vendors_folder_is_imported_listed_shown_and_withdrawn(
    running, vendor, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    words = ["endorsement", "import", "--kind", "vendor", "--source", "acme.example", str(vendor)]
    assert run([*words, *running.options]) == 0
    assert "4 accepted, 0 known before, 0 not accepted" in capsys.readouterr().out
    assert run([*words, *running.options, "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["known"]), told["accepted"], told["refused"]) == (4, [], [])

    assert run(["endorsement", "list", *running.options]) == 0
    listed = capsys.readouterr().out
    for expected in ("acme-tpm-root-ca-1", "acme-ek-ca-7", "crl-acme-tpm-root-ca-1", "vendor root"):
        assert expected in listed
    assert run(["endorsement", "list", *running.options, "-o", "json"]) == 0
    files = {one["name"]: one["file"] for one in json.loads(capsys.readouterr().out)}
    assert files["acme-ek-ca-7"] == "TrustedTpm/Acme/IntermediateCA/ek7.CER"

    assert run(["endorsement", "show", "crl-acme-tpm-root-ca-1", *running.options]) == 0
    shown = capsys.readouterr().out
    assert "2 certificates" in shown
    assert "BEGIN X509 CRL" in shown
    assert "nodes below  0" in shown
    assert run(["endorsement", "withdraw", "acme-tpm-root-ca-2", *running.options]) == 0
    capsys.readouterr()
    assert run(["endorsement", "show", "acme-tpm-root-ca-2", *running.options]) == 3
    assert "no-such-endorsement" in capsys.readouterr().err


def test_it_is_shown_whose_nodes_are_being_judged_again(running, vendor, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["endorsement", "progress", *running.options]) == 0
    assert capsys.readouterr().out == "every node is judged by what is accepted now\n"
    assert run(["endorsement", "import", str(vendor), *running.options]) == 0
    capsys.readouterr()
    assert run(["endorsement", "progress", *running.options]) == 0
    assert capsys.readouterr().out == "3 changed authorities have no nodes below them\n"
    assert run(["endorsement", "progress", *running.options, "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["open"]), told["unknown"]) == (3, 0)


def test_authorities_with_nodes_below_them_are_listed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    one, none = (
        ChangedAuthority(
            name=name, changed_at="2030-01-01T00:00:00Z", nodes=nodes, judged=64, is_second=False
        )
        for name, nodes in (("CN=Acme", 100), ("CN=Other", 0))
    )
    _render_progress(RejudgingView(open=(one, none), unknown=0))
    told = capsys.readouterr().out
    assert "CN=Acme    2030-01-01T00:00:00Z  100    64" in told
    assert "CN=Other" not in told
    assert "1 changed authorities have no nodes below them" in told


def test_nodes_that_cannot_be_judged_again_are_told(capsys):
    _render_progress(RejudgingView(open=(), unknown=2))
    assert "2 nodes enrolled before their certificates were kept" in capsys.readouterr().out


def test_a_zip_is_imported_and_what_is_refused_is_told(running, vendor, tmp_path, capsys):
    archive = tmp_path / "bundle.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(vendor.rglob("*.*")):
            file.write(path, path.relative_to(vendor))
        file.writestr("Acme/broken.cer", b"\x30\x82\x01\x00 cut off")
        file.writestr(
            "Acme/key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        )
    words = ["endorsement", "import", str(archive), *running.options]
    assert run(words) == 14
    told = capsys.readouterr().out
    assert "4 accepted" in told
    assert "bundle.zip:Acme/broken.cer" in told
    assert "[ek-certificate-malformed]" in told
    assert "[no-endorsements]" in told
    assert run([*words, "-o", "json"]) == 14
    assert len(json.loads(capsys.readouterr().out)["refused"]) == 2


def test_roots_vouch_as_an_enterprise_unless_said_otherwise(running, vendor, capsys):
    assert run(["endorsement", "import", str(vendor / "Acme" / "roots.pem"), *running.options]) == 0
    capsys.readouterr()
    assert run(["endorsement", "list", *running.options, "-o", "json"]) == 0
    assert {one["vouches"] for one in json.loads(capsys.readouterr().out)} == {"enterprise"}


def test_nothing_to_import_is_not_found(standing, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (empty, tmp_path / "none"):
        assert run(["endorsement", "import", str(path), *standing.options]) == 3
        assert "no-bundle" in capsys.readouterr().err
    assert run(["endorsement", "list", *standing.options]) == 0
    assert "only pinned ones" in capsys.readouterr().out


def test_who_has_no_token_of_this_server_imports_nothing(running, vendor, tmp_path):
    token = tmp_path / "stranger"
    token.write_text("catena_stranger")
    token.chmod(0o600)
    options = [*running.options[:4], "--token-file", str(token)]
    assert run(["endorsement", "import", str(vendor), *options]) == 10


def test_a_damaged_zip_is_told(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(NoBundle, match="damaged zip"):
        gather([path])


def test_too_much_at_once_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(endorsement_files, "MAX_BUNDLE", 1000)
    path = tmp_path / "big.der"
    path.write_bytes(bytes(1001))
    with pytest.raises(NoBundle, match="too much"):
        gather([path])


def test_a_request_holds_no_more_than_a_server_reads():
    item = EndorsementItem(file="x", content=bytes(5 * 1024 * 1024))
    assert [len(batch) for batch in batches([item] * 5)] == [2, 2, 1]
    small = EndorsementItem(file="x", content=b"x")
    assert [len(batch) for batch in batches([small] * 1500)] == [1024, 476]
