"""Every log of the corpus, recognised and replayed by the code behind `catena eventlog replay`."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from recorded_boots import CORPUS

from catena.errors import FormatError
from catena.formats import cel, ima, ima_ascii
from catena.ids import HashAlg
from catena.measure import logfile
from catena.measure.logfile import NotALog, parse, replay_all
from small_logs import CEL_JSON, CEL_TLV, IMA_TEXT, PHASES

SHA1, SHA256 = HashAlg.SHA1, HashAlg.SHA256
FORMATS = {"sha1-legacy": {"tcg12"}, "crypto-agile": {"tcg2", "ccel"}}
REGISTERS = ("ccel", "tdx")


def _truth():
    if not CORPUS.is_dir():
        return []
    csv.field_size_limit(sys.maxsize)
    lines = (CORPUS / "eventlogs/TRUTH.tsv").read_text().splitlines()
    return [pytest.param(row, id=row["file"]) for row in csv.DictReader(lines, delimiter="\t")]


def _is_of_registers(name: str) -> bool:
    return any(word in name.lower() for word in REGISTERS)


@pytest.mark.parametrize("row", _truth())
def test_every_real_log_replays_to_the_truth_in_every_bank(row, corpus):
    found = replay_all((corpus / "eventlogs" / row["file"]).read_bytes())
    got = {
        bank.value: {str(pcr): value.hex() for pcr, value in values.items() if pcr < 16}
        for bank, values in found.pcrs.items()
    }
    truth = json.loads(row["pcrs"])
    assert got == {bank: truth.get(bank, {}) for bank in got}
    assert set(truth) <= set(got)
    assert found.events == int(row["events"])
    told = None if row["startup_locality"] == "None" else int(row["startup_locality"])
    assert found.startup_locality == told
    assert found.format in FORMATS[row["format"]]
    assert (found.format == "ccel") == _is_of_registers(row["file"])


def test_there_are_68_real_logs(corpus):
    assert len(_truth()) == 68


def test_text_and_binary_of_one_ima_log_say_the_same(corpus):
    folder = corpus / "ima"
    text = (folder / "Fraunhofer-SIT+charra__logs__ima__ascii_runtime_measurements").read_bytes()
    wire = (folder / "Fraunhofer-SIT+charra__logs__ima__binary_runtime_measurements").read_bytes()
    read, known = ima_ascii.parse(text), ima.parse(wire)
    assert len(read) > 1600
    assert [one.template_data for one in read] == [one.template_data for one in known[: len(read)]]


@pytest.mark.parametrize("name", ["sha1", "sha256", "sha384", "sha512"])
def test_ima_logs_of_every_file_hash_are_read(corpus, name):
    path = corpus / f"ima/keylime+keylime__test__data__create-runtime-policy__ima-log-{name}"
    kind, entries = parse(path.read_bytes())
    assert kind == "ima"
    assert {entry.file_digest[0] for entry in entries} == {name}


def test_violations_are_opaque_and_extend_ones(corpus):
    path = "ima/tpm2-software+tpm2-tss__test__data__fapi__eventlog__sml-ima-sha1-invalidated.bin"
    found = replay_all((corpus / path).read_bytes())
    assert (found.events, found.opaque_events) == (1, 1)
    assert found.pcrs[SHA256] == {10: SHA256.digest(bytes(32) + b"\xff" * 32)}


def test_an_ima_log_as_text_is_recognised():
    found = replay_all(IMA_TEXT)
    assert (found.format, found.events, found.opaque_events) == ("ima", 2, 0)
    assert found.banks == logfile.IMA_BANKS


@pytest.mark.parametrize("wire", [CEL_JSON, CEL_TLV], ids=["json", "tlv"])
def test_a_canonical_log_replays_what_was_measured(wire):
    found = replay_all(wire)
    assert (found.format, found.banks) == ("cel", (SHA1, SHA256))
    assert (found.events, found.opaque_events) == (len(PHASES), 0)
    value = bytes(32)
    for phase in PHASES:
        value = SHA256.digest(value + SHA256.digest(phase))
    assert found.pcrs[SHA256] == {11: value}


def test_a_record_of_an_nv_index_extends_no_pcr():
    record = b'\x1e{"nv_index":20971520,"digests":[{"hashAlg":"sha256","digest":"%s"}],' % (
        b"0" * 64
    )
    found = replay_all(record + b'"content_type":"systemd","content":{"string":"x"}}\n')
    assert found.pcrs == {SHA256: {}}
    assert found.opaque_events == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"\x7fELF" + bytes(60), b"#!/bin/sh\n" * 10, b"\xff" * 100, b"{}" * 40],
)
def test_what_is_no_log_is_refused_as_such(data):
    with pytest.raises(NotALog) as caught:
        parse(data)
    assert caught.value.code == "not-a-log"
    assert caught.value.offset <= len(data)


def test_a_damaged_log_keeps_the_offset_of_its_fault(corpus):
    wire = (corpus / "boots/B_sb_own_uki/eventlog.bin").read_bytes()
    with pytest.raises(FormatError) as caught:
        replay_all(wire[:-1])
    assert type(caught.value) is FormatError
    assert len(wire) - 200 < caught.value.offset < len(wire)


def test_formats_do_not_shadow_each_other(corpus):
    """No real log of one kind is taken for another."""
    for path in sorted(Path(corpus / "ima").iterdir()):
        if path.suffix == ".tsv" or path.name.endswith(("ng-sha1.bin", "sha1.bin", "sha256.bin")):
            continue  # the fixtures that end in half an entry
        assert parse(path.read_bytes())[0] == "ima", path.name
    assert cel.parse_tlv(CEL_TLV)
