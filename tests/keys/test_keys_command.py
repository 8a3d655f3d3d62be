from __future__ import annotations

import json

import pytest

from catena.cli.main import run
from catena.formats.references import KeySet
from catena.keys import hierarchy, varstore
from catena.keys.documents import open_document
from catena.keys.hierarchy import KeyName

needs_ovmf = pytest.mark.skipif(
    not varstore.DEFAULT_TEMPLATE.is_file(), reason="OVMF is not installed"
)


def catena(capsys, *words):
    code = run([str(word) for word in words])
    return code, json.loads(capsys.readouterr().out)


def test_init_then_show_list_the_same_keys(capsys, tmp_path):
    code, made = catena(
        capsys, "keys", "init", tmp_path / "keys", "--organisation", "E", "-o", "json"
    )
    assert code == 0
    assert [key["name"] for key in made["keys"]] == [name.value for name in KeyName]
    assert catena(capsys, "keys", "show", tmp_path / "keys", "-o", "json") == (0, made)
    assert run(["keys", "show", str(tmp_path / "keys")]) == 0
    printed = capsys.readouterr().out
    assert made["keys"][0]["key_id"][:16] in printed
    assert made["owner"] in printed


def test_init_twice_is_a_usage_error(capsys, keys):
    code, document = catena(capsys, "keys", "init", keys.path, "-o", "json")
    assert (code, document["error"]["code"]) == (2, "key-exists")
    assert document["error"]["remedy"]


def test_passphrase_comes_from_a_file(capsys, tmp_path):
    (tmp_path / "secret").write_text("open sesame\nsecond line\n")
    words = ("--passphrase-file", tmp_path / "secret", "-o", "json")
    code, _ = catena(capsys, "keys", "init", tmp_path / "keys", *words)
    assert code == 0
    hierarchy.open_folder(tmp_path / "keys", b"open sesame").signer(KeyName.LOG)


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_unusable_passphrase_file_stops_before_keys_exist(capsys, tmp_path, content):
    if content is not None:
        (tmp_path / "secret").write_text(content)
    words = ("--passphrase-file", tmp_path / "secret", "-o", "json")
    code, document = catena(capsys, "keys", "init", tmp_path / "keys", *words)
    assert (code, document["error"]["code"]) == (2, "unreadable-passphrase")
    assert not (tmp_path / "keys").exists()


def test_show_of_another_folder_is_not_found(capsys, tmp_path):
    code, document = catena(capsys, "keys", "show", tmp_path, "-o", "json")
    assert (code, document["error"]["code"]) == (3, "no-key-folder")


@needs_ovmf
def test_enroll_writes_store_and_signed_key_set(capsys, keys, tmp_path):
    target = tmp_path / "node.fd"
    words = ("keys", "enroll", keys.path, "--varstore", target, "-o", "json")
    code, document = catena(capsys, *words)
    assert code == 0
    sealed = (tmp_path / "keyset.dsse.json").read_bytes()
    keyset = open_document(sealed, [keys.public_key(KeyName.RELEASE)], KeySet)
    assert document["pcrs"] == keyset.pcrs
    assert document["varstore"] == str(target)
    assert catena(capsys, *words)[1]["error"]["code"] == "key-exists"
    target.unlink()
    (tmp_path / "keyset.dsse.json").unlink()
    assert run([str(word) for word in words[:-2]]) == 0
    assert keyset.pcrs["sha256"]["7"] in capsys.readouterr().out
