"""`catena eventlog` as people and programs see it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import msgspec
import pytest

from catena.cli import eventlog
from catena.cli.main import run
from small_logs import CEL_JSON, IMA_TEXT

CORPUS = Path(__file__).resolve().parents[2].parent / "shared/corpus"
BOOT = CORPUS / "boots/B_sb_own_uki"
TRANSCRIPTS = Path(__file__).parent / "transcripts"

needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no corpus at {CORPUS}")


@pytest.fixture
def answer(capsys):
    def call(*words):
        status = run([str(word) for word in (*words, "-o", "json")])
        return status, json.loads(capsys.readouterr().out)

    return call


@needs_corpus
def test_replay_prints_what_the_tpm_held(answer):
    status, said = answer("eventlog", "replay", BOOT / "eventlog.bin")
    held = json.loads((BOOT / "state.json").read_text())["pcrs"]
    assert status == 0
    assert set(said) == {
        *("format", "banks", "startup_locality", "events", "pcrs", "opaque_events"),
    }
    assert (said["format"], said["banks"]) == ("tcg2", list(said["pcrs"]))
    for bank, values in said["pcrs"].items():
        assert values == {pcr: held[bank][pcr] for pcr in values}


def test_replay_reads_standard_input(answer, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(IMA_TEXT)))
    status, said = answer("eventlog", "replay", "-")
    assert (status, said["format"], said["events"]) == (0, "ima", 2)


def test_replay_prints_a_table(tmp_path, capsys):
    (tmp_path / "log").write_bytes(CEL_JSON)
    assert run(["eventlog", "replay", str(tmp_path / "log")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("format            cel\nevents            4, 0 of them opaque\n")
    assert "\nsha256\n  PCR 11  " in told


@pytest.mark.parametrize("content", [b"", b"no log at all, but long enough for a header of one"])
def test_what_is_no_log_is_exit_code_14_with_an_offset(answer, tmp_path, content):
    (tmp_path / "log").write_bytes(content)
    status, said = answer("eventlog", "replay", tmp_path / "log")
    assert status == 14
    assert {"code", "message", "offset", "remedy"} <= set(said["error"])
    assert said["error"]["code"] == "not-a-log"


def test_a_file_that_is_not_there_is_exit_code_3(answer, tmp_path):
    status, said = answer("eventlog", "replay", tmp_path / "log")
    assert (status, said["error"]["code"]) == (3, "no-such-file")


def test_a_file_that_is_too_large_is_refused_before_it_is_read(answer, tmp_path, monkeypatch):
    monkeypatch.setattr(eventlog, "MAX_FILE", 10)
    (tmp_path / "log").write_bytes(IMA_TEXT)
    status, said = answer("eventlog", "replay", tmp_path / "log")
    assert (status, said["error"]["code"]) == (14, "log-too-large")


@needs_corpus
@pytest.mark.parametrize("laptop", ["t14", "t14s", "t480s"])
def test_show_tells_a_laptop_in_few_lines(capsys, laptop):
    name = f"Foxboron+sbctl__tests__tpm_eventlogs__{laptop}_eventlog"
    assert run(["eventlog", "show", str(CORPUS / "eventlogs" / name)]) == 0
    told = capsys.readouterr().out
    assert told == (TRANSCRIPTS / f"show_{laptop}.txt").read_text()
    assert len(told.splitlines()) < 60
    assert max(map(len, told.splitlines())) <= 100


DIFFERENCES = {
    "keys_enrolled": ("A_nosb_uki", "B_sb_own_uki"),
    "credentials": ("B_sb_own_uki", "D_sb_own_uki_creds"),
    "loader_gone": ("C_sb_own_sdboot_uki", "B_sb_own_uki"),
    "firmware_string": ("B_sb_own_uki", "I_sb_own_uki_smbios"),
    "other_path": ("A_nosb_uki", "G_nosb_sdboot_type1"),
}


@needs_corpus
@pytest.mark.parametrize("name", DIFFERENCES)
def test_diff_tells_what_changed(capsys, name):
    """A string in SMBIOS changes nothing: this firmware measures none of it."""
    files = [str(CORPUS / "boots" / boot / "eventlog.bin") for boot in DIFFERENCES[name]]
    assert run(["eventlog", "diff", *files]) == 0
    told = capsys.readouterr().out
    assert told == (TRANSCRIPTS / f"diff_{name}.txt").read_text()
    assert max(map(len, told.splitlines())) <= 100


@needs_corpus
def test_show_knows_the_initrd_of_the_kernel_image(capsys):
    assert run(["eventlog", "show", str(BOOT / "eventlog.bin")]) == 0
    assert "Initrd            the kernel image's own, by its digest\n" in capsys.readouterr().out
    with_credentials = CORPUS / "boots/D_sb_own_uki_creds/eventlog.bin"
    assert run(["eventlog", "show", str(with_credentials)]) == 0
    assert "the kernel image's own" not in capsys.readouterr().out


@needs_corpus
def test_show_names_problems_and_still_exits_with_0(answer, tmp_path):
    wire = bytearray((BOOT / "eventlog.bin").read_bytes())
    at = wire.index("SecureBoot".encode("utf-16-le")) + 2 * len("SecureBoot")
    wire[at] ^= 1
    (tmp_path / "log").write_bytes(bytes(wire))
    status, said = answer("eventlog", "show", tmp_path / "log")
    assert status == 0
    assert [one["code"] for one in said["problems"]] == ["edited-data"]
    assert said["secure_boot"] is None


@needs_corpus
def test_explain_lists_every_event(answer, capsys):
    status, said = answer("eventlog", "explain", BOOT / "eventlog.bin")
    assert (status, len(said)) == (0, 37)
    assert said[4]["description"] == "variable SecureBoot = 01"
    assert (said[4]["proven"], said[24]["proven"]) == ("whole", "none")
    assert run(["eventlog", "explain", str(BOOT / "eventlog.bin")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "event  PCR  digest        what was measured"
    assert told[5] == f"    4    7  {said[4]['digest'][:12]}  variable SecureBoot = 01"
    assert told[-11].endswith("  content of UKI section .linux")
    assert max(map(len, told)) <= 100


@needs_corpus
def test_diff_tells_two_boots_apart(answer, capsys):
    other = CORPUS / "boots/A_nosb_uki/eventlog.bin"
    status, said = answer("eventlog", "diff", other, BOOT / "eventlog.bin")
    assert (status, said["identical"], said["changed_pcrs"]) == (0, False, [0, 4, 7])
    assert run(["eventlog", "diff", str(other), str(BOOT / "eventlog.bin")]) == 0
    told = capsys.readouterr().out
    assert "db gained certificate CN=DTC db,O=DTC Test" in told
    assert "Follows           PCR 0, 4, 7 differ in sha256" in told


@needs_corpus
def test_banks_can_be_chosen(answer):
    status, said = answer("eventlog", "show", BOOT / "eventlog.bin", "--bank", "sha1")
    assert (status, said["bank"]) == (0, "sha1")
    status, said = answer("eventlog", "show", BOOT / "eventlog.bin", "--bank", "sm3_256")
    assert (status, said["error"]["code"]) == (2, "no-such-bank")


@pytest.mark.parametrize("words", [("explain",), ("show", "--bank", "sha256")])
def test_only_firmware_logs_are_read_event_by_event_and_bank_by_bank(answer, tmp_path, words):
    (tmp_path / "log").write_bytes(IMA_TEXT)
    status, said = answer("eventlog", *words, tmp_path / "log")
    assert (status, said["error"]["code"]) == (14, "not-a-firmware-log")


def test_show_lists_what_a_running_system_measured(answer, tmp_path, capsys):
    (tmp_path / "ima").write_bytes(IMA_TEXT)
    (tmp_path / "cel").write_bytes(CEL_JSON)
    status, said = answer("eventlog", "show", tmp_path / "ima")
    assert (status, said["format"], said["events"], said["unproven"]) == (0, "ima", 2, 0)
    assert [one["words"] for one in said["entries"]] == ["/init", "/a b"]
    status, said = answer("eventlog", "show", tmp_path / "cel")
    assert (status, said["format"]) == (0, "cel")
    assert [one["words"] for one in said["entries"]][:2] == ["enter-initrd", "leave-initrd"]
    assert run(["eventlog", "show", str(tmp_path / "cel")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "canonical event log, 4 entries, 0 of them not proven, 0 violations"
    assert told[2].startswith("     0  11  sha256:")
    assert told[2].endswith("  enter-initrd")


def test_diff_refuses_what_it_cannot_compare(answer, tmp_path):
    (tmp_path / "log").write_bytes(IMA_TEXT)
    (tmp_path / "json").write_bytes(b"{}")
    status, said = answer("eventlog", "diff", tmp_path / "log", tmp_path / "log")
    assert (status, said["error"]["code"]) == (14, "not-a-firmware-log")
    status, said = answer("eventlog", "diff", tmp_path / "json", tmp_path / "log")
    assert (status, said["error"]["code"]) == (14, "malformed")


@needs_corpus
def test_diff_holds_a_boot_against_a_signed_reference(answer, tmp_path):
    """The envelope's payload is read; nothing here rests on its signature."""
    from appraise.forged import corpus_boot, keyset_of
    from catena.formats import dsse
    from catena.formats.references import KEYSET_TYPE

    keyset = keyset_of(corpus_boot("B_sb_own_uki"))
    statement = dsse.Statement(
        subject=(), predicate_type=KEYSET_TYPE, predicate=msgspec.Raw(msgspec.json.encode(keyset))
    )
    signature = dsse.Signature(keyid="", sig=b"x")
    envelope = dsse.Envelope(statement.encode(), dsse.IN_TOTO, (signature,))
    (tmp_path / "keyset.json").write_bytes(envelope.encode())
    same = answer("eventlog", "diff", tmp_path / "keyset.json", BOOT / "eventlog.bin")
    assert same[1]["identical"]
    other = CORPUS / "boots/A_nosb_uki/eventlog.bin"
    status, said = answer("eventlog", "diff", tmp_path / "keyset.json", other)
    assert (status, said["changed_pcrs"]) == (0, [7])
