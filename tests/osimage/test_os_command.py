from __future__ import annotations

import json

import pytest

from catena.cli.main import run
from catena.formats.dsse import Subject
from catena.formats.references import KeySet
from catena.keys.documents import seal_document
from catena.keys.hierarchy import KeyName
from catena.osimage import modules

PCRS = {"sha256": {"7": "ab" * 32}, "sha384": {"7": "cd" * 48}}
KEYSET = KeySet(name="k", version="1", owner="o", certificates={}, events=(), pcrs=PCRS)
SUBJECT = [Subject(name="k", digest={"sha256": "00"})]


def catena(capsys, *words):
    code = run([str(word) for word in words])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def build_words(recipe, keys, tmp_path, monkeypatch):
    monkeypatch.setattr(modules, "DEFAULT_MODULES", ("disk", "tpm"))
    return (
        *("os", "build", tmp_path / "made", "--keys", keys.path, "--root", recipe.tree),
        *("--kernel", recipe.kernel, "--modules", recipe.modules, "--stub", recipe.stub),
        *("--name", "edge", "--version", "1.0", "--security-version", "3", "-o", "json"),
    )


def test_build_prints_the_manifest_it_signed(built, capsys, build_words, keys, tmp_path):
    keyset = tmp_path / "keyset.dsse.json"
    keyset.write_bytes(seal_document(KEYSET, SUBJECT, keys.signer(KeyName.RELEASE)))
    code, document = catena(capsys, *build_words, "--module", "net", "--keyset", keyset)
    assert code == 0
    assert document["pcrs"]["sha256"]["7"] == "ab" * 32
    assert document["root"] == {
        **document["root"],
        "root_hash": built[1].root.root_hash,
    }
    verified = catena(capsys, "os", "verify", tmp_path / "made", "--keys", keys.path, "-o", "json")
    assert verified == (0, document)


def test_build_takes_only_key_sets_of_its_own_release_key(capsys, build_words, keys, tmp_path):
    keyset = tmp_path / "keyset.dsse.json"
    keyset.write_bytes(seal_document(KEYSET, SUBJECT, keys.signer(KeyName.LOG)))
    code, document = catena(capsys, *build_words, "--keyset", keyset)
    assert (code, document["error"]["code"]) == (10, "untrusted-signer")
    assert not (tmp_path / "made").exists()


def test_only_standard_exclusions_can_be_kept(capsys, build_words):
    code, document = catena(capsys, *build_words, "--keep", "nonsense/*")
    assert (code, document["error"]["code"]) == (2, "usage")


def test_verify_takes_single_public_files(built, capsys, keys):
    words = ("os", "verify", built[0], "--release-key", keys.path / "release.pub")
    code, document = catena(capsys, *words, "-o", "json")
    assert (code, document["error"]["code"]) == (2, "no-verification-key")
    certificate = ("--db-certificate", keys.path / "db.crt")
    assert run([str(word) for word in (*words, *certificate)]) == 0
    printed = capsys.readouterr().out
    assert built[1].root.root_hash in printed
    assert "PCR 11" in printed


def test_verify_without_keys_is_a_usage_error(built, capsys):
    code, document = catena(capsys, "os", "verify", built[0], "-o", "json")
    assert (code, document["error"]["code"]) == (2, "no-verification-key")


def test_verify_of_a_strangers_release_is_untrusted(built, capsys, keys):
    words = ("--release-key", keys.path / "log.pub", "--keys", keys.path, "-o", "json")
    code, document = catena(capsys, "os", "verify", built[0], *words)
    assert (code, document["error"]["code"]) == (10, "untrusted-signer")
