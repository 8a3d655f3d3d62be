from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from catena.formats import efi
from catena.keys import varstore
from catena.keys.hierarchy import FIRMWARE_KEYS, KeyName
from catena.keys.signer import KeyExists
from catena.keys.varstore import NoTemplate, UnusableVarstore

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus/boots"
TEMPLATE = varstore.DEFAULT_TEMPLATE
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")
needs_ovmf = pytest.mark.skipif(not TEMPLATE.is_file(), reason="OVMF is not installed")


@needs_corpus
@pytest.mark.parametrize(
    "boot", ["B_sb_own_uki", "C_sb_own_sdboot_uki", "D_sb_own_uki_creds", "I_sb_own_uki_smbios"]
)
def test_pcr_7_of_real_boots_follows_from_their_variables(boot):
    variables = varstore.read_variables(CORPUS / boot / "vars.fd")
    authority = efi.parse_signature_lists(variables["db"])[0].signatures[0]
    predicted = varstore.key_set(variables, authority, {}).pcrs
    measured = json.loads((CORPUS / boot / "state.json").read_text())["pcrs"]
    assert {bank: values["7"] for bank, values in predicted.items() if bank in measured} == {
        bank: measured[bank]["7"] for bank in predicted if bank in measured
    }


@needs_ovmf
def test_store_holds_exactly_the_enterprise_keys(keys, tmp_path):
    keyset = varstore.enroll(keys, TEMPLATE, tmp_path / "vars.fd")
    variables = varstore.read_variables(tmp_path / "vars.fd")
    assert variables["SecureBootEnable"] == b"\1"
    assert variables["CustomMode"] == b"\0"
    assert "dbx" not in variables
    for name in FIRMWARE_KEYS:
        lists = efi.parse_signature_lists(variables[name])
        der = keys.certificate(name).public_bytes(Encoding.DER)
        assert [(one.owner, one.data) for each in lists for one in each.signatures] == [
            (keys.owner, der)
        ]
    assert keyset.certificates["db"] == ("CN=Example db,O=Example",)
    assert keyset.owner == str(keys.owner)
    assert (tmp_path / "vars.fd").stat().st_size == TEMPLATE.stat().st_size


@needs_ovmf
def test_key_set_names_each_measurement(keys, tmp_path):
    keyset = varstore.enroll(keys, TEMPLATE, tmp_path / "vars.fd")
    identifiers = [event.id for event in keyset.events]
    assert identifiers == ["SecureBoot", "PK", "KEK", "db", "dbx", "authority:db"]
    assert {event.pcr for event in keyset.events} == {7}
    der = keys.certificate(KeyName.DB).public_bytes(Encoding.DER)
    used = efi.VariableData(efi.IMAGE_SECURITY_DATABASE, "db", keys.owner.bytes_le + der)
    digests = keyset.events[-1].digests
    assert digests == {bank: bank.digest(used.encode()).hex() for bank in varstore.BANKS}


@needs_ovmf
def test_same_keys_give_the_same_bytes(keys, tmp_path):
    first = varstore.enroll(keys, TEMPLATE, tmp_path / "1.fd")
    second = varstore.enroll(keys, TEMPLATE, tmp_path / "2.fd")
    assert first == second
    assert (tmp_path / "1.fd").read_bytes() == (tmp_path / "2.fd").read_bytes()


@needs_corpus
def test_keys_of_the_template_do_not_survive(keys, tmp_path):
    varstore.enroll(keys, CORPUS / "B_sb_own_uki/vars.fd", tmp_path / "vars.fd")
    variables = varstore.read_variables(tmp_path / "vars.fd")
    assert "dbx" not in variables
    assert b"DTC Test" not in variables["PK"] + variables["KEK"] + variables["db"]
    assert "BootOrder" in variables


@needs_ovmf
def test_secure_boot_can_be_switched_off_for_an_attack(keys, tmp_path):
    varstore.enroll(keys, TEMPLATE, tmp_path / "vars.fd")
    varstore.disable_secure_boot(tmp_path / "vars.fd", tmp_path / "off.fd")
    before = varstore.read_variables(tmp_path / "vars.fd")
    assert varstore.read_variables(tmp_path / "off.fd") == {**before, "SecureBootEnable": b"\0"}
    with pytest.raises(UnusableVarstore, match="switch"):
        varstore.disable_secure_boot(TEMPLATE, tmp_path / "none.fd")


@needs_ovmf
def test_stores_are_never_overwritten(keys, tmp_path):
    (tmp_path / "vars.fd").write_bytes(b"precious")
    with pytest.raises(KeyExists):
        varstore.enroll(keys, TEMPLATE, tmp_path / "vars.fd")
    assert (tmp_path / "vars.fd").read_bytes() == b"precious"


@pytest.mark.parametrize("content", [b"", b"x" * 5000, bytes(100_000)])
def test_other_files_are_no_variable_stores(keys, tmp_path, content):
    (tmp_path / "odd.fd").write_bytes(content)
    with pytest.raises(UnusableVarstore):
        varstore.enroll(keys, tmp_path / "odd.fd", tmp_path / "vars.fd")
    with pytest.raises(NoTemplate):
        varstore.enroll(keys, tmp_path / "none.fd", tmp_path / "vars.fd")
