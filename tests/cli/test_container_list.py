"""`catena container list` as people and programs see it."""

from __future__ import annotations

import json

import pytest

from catena.cli import output
from catena.cli.container_list import list_containers
from catena.errors import CatenaError
from catena.formats.cel import encode_tlv
from catena.formats.containerlog import encode, to_record
from catena.ids import HashAlg
from small_records import create, deny, execute, gate_start, leave, policy, record_of

EVENTS = (
    gate_start(),
    policy(),
    create(2, "web"),
    create(3, "db", launch_policy=""),
    execute(4, "web"),
    deny(5, "bad\x1b[2J", repository="registry.example/bad"),
    leave(6, "db"),
)


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "record.cel"
    path.write_bytes(record_of(*EVENTS))
    return path


def call(*words):
    list_containers.main([str(word) for word in words], standalone_mode=False)


def test_a_table_says_what_ran_and_why(record, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    call("--record", record)
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert said[0] == ["container", "state", "started", "image", "execs", "why"]
    assert said[1][:2] == ["web", "running"]
    assert "1 signed by acme (cosign), policy site 3, its launch policy" in " ".join(said[1])
    assert said[2][:2] == ["db", "exited"]
    assert "the default launch policy" in " ".join(said[2])
    assert said[3][1] == "refused"
    assert "unsigned: no signature" in " ".join(said[3])


def test_the_record_of_a_tenant_says_whose_it_is(tmp_path, capsys):
    path = tmp_path / "record.cel"
    wire = (
        to_record(index, encode(event), (HashAlg.SHA256,), pcr=None, nv_index=0x01800F01)
        for index, event in enumerate(EVENTS)
    )
    path.write_bytes(b"".join(map(encode_tlv, wire)))
    call("--record", path)
    assert capsys.readouterr().out.startswith("tenant of NV index 0x01800f01\n")
    call("--record", path, "-o", "json")
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_nothing_of_a_container_reaches_the_terminal(record, capsys):
    call("--record", record)
    assert "\x1b" not in capsys.readouterr().out


def test_json_says_the_same_and_more(record, capsys):
    call("--record", record, "-o", "json")
    web, db, bad = json.loads(capsys.readouterr().out)
    assert (web["container"], web["state"], web["ended"]) == ("web", "running", None)
    assert web["launch"]["argv"] == ["/bin/app", "--serve"]
    assert web["execs"] == [["/bin/app", "--serve"]]
    assert (db["state"], db["ended"]) == ("exited", "2026-05-04T12:00:06Z")
    assert (bad["state"], bad["code"], bad["launch"]) == ("refused", "unsigned", None)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--running"], ["web"]),
        (["--refused"], ["bad\x1b[2J"]),
        (["--running", "--refused"], ["web", "bad\x1b[2J"]),
    ],
)
def test_flags_choose(record, capsys, flags, expected):
    call("--record", record, *flags, "-o", "json")
    assert [one["container"] for one in json.loads(capsys.readouterr().out)] == expected


def test_a_record_that_is_just_being_written_is_read(record, capsys):
    record.write_bytes(record.read_bytes() + record_of(deny())[:99])
    call("--record", record, "-o", "json")
    assert len(json.loads(capsys.readouterr().out)) == 3


def test_an_empty_list_says_so(record, capsys):
    record.write_bytes(b"")
    call("--record", record)
    assert "no such container" in capsys.readouterr().out


def test_an_altered_record_is_an_error(record):
    record.write_bytes(record.read_bytes().replace(b"acme", b"evil"))
    with pytest.raises(CatenaError, match="altered") as refused:
        call("--record", record)
    assert refused.value.code == "record-mismatch"


def test_the_help_has_exit_codes_and_examples(capsys):
    with pytest.raises(SystemExit):
        list_containers.main(["--help"])
    said = capsys.readouterr().out
    assert "Exit codes:" in said
    assert "catena container list --running" in said
    assert isinstance(list_containers, output.Verb)
