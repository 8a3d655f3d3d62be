"""A fleet on real software TPMs against the real server, and the boots of a lab."""

from __future__ import annotations

import html
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from appraise.forged import CORPUS, corpus_boot
from catena.cli.main import run as run_command
from catena.errors import ExitCode
from catena.evidence import qualifying_data
from catena.formats import tpm2
from catena.ids import QUOTED_PCRS, HashAlg
from catena.lab.fleet.boots import recorded_boots
from catena.lab.fleet.hostile import CASES, ENROLMENT_CASE, Exchange
from catena.lab.fleet.labboots import NoLabBoots, lab_boots
from catena.lab.fleet.load import Plan
from catena.lab.fleet.page import page
from catena.lab.fleet.running import Own, run
from catena.lab.fleet.softtpm import SoftwareMaker, utc_now
from catena.lab.fleet.source import SoftwareKeys
from catena.lab.process import catena_command
from catena.store.database import Database
from living import assert_gone, await_that, processes_naming
from recorded import TRUSTED, record_boots
from store.store_samples import NOON, make_node
from swtpm import needs_swtpm

needs_corpus = pytest.mark.skipif(
    not (CORPUS / "boots").is_dir(), reason="the corpus of real boots is not here"
)


def quiet(phase: str, done: float, total: float) -> None:
    """A progress that nobody watches."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return record_boots(tmp_path_factory.mktemp("boots"))


@pytest.fixture(scope="module")
def boots(folder):
    return recorded_boots(folder)


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Where temporary folders are made; at the end no folder is left, and no process of one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert processes_naming(tmp_path) == {}
    assert list(tmp_path.glob("catena-fleet-*")) == []


@pytest.fixture
def pool(boots, room):
    from catena.lab.fleet.pool import Wanted, pool_of

    maker = SoftwareMaker.make(utc_now())
    with pool_of(Wanted(2, boots, 2), maker, utc_now(), quiet) as made:
        yield made


@pytest.mark.tpm
@needs_swtpm
@needs_corpus
def test_a_fleet_on_tpms_is_trusted_and_no_attack_gets_through(boots, room):
    """The real server over TLS; connections and time are enough for each attack to be made."""
    from catena.lab.fleet.hostiletpm import LEFT_OUT, TPM_CASES

    plan = Plan(seconds=6, hostile=0.9)
    report = run(6, boots, plan, Own(), quiet, connections=3, tpms=2)
    assert report.holds, (report.wrong, report.examples)
    assert report.attestations > 0
    assert report.first.count == 6 + 3
    assert set(report.hostile) == {*(case.name for case in TPM_CASES), ENROLMENT_CASE}
    assert (report.tpms, report.boots) == (2, TRUSTED)
    assert "swtpm" in report.keys
    assert report.left_out == LEFT_OUT
    assert all(html.escape(reason) in page(report) for reason in LEFT_OUT.values())


@pytest.mark.tpm
@needs_swtpm
@needs_corpus
def test_every_node_has_its_own_keys_and_the_boot_of_its_tpm(pool, boots):
    nodes = [pool.node() for _ in range(4)]
    assert len({node.tpm.ek_public for node in nodes}) == len(nodes)
    assert len({node.tpm.ak_public for node in nodes}) == len(nodes)
    assert [node.logs.boot.name for node in nodes] == [*TRUSTED, *TRUSTED]
    for node in nodes:
        evidence = node.evidence(b"n" * 56)
        assert evidence.pcrs == corpus_boot(node.logs.boot.name).values
        attest = tpm2.parse_attest(evidence.quote)
        assert attest.extra_data == qualifying_data(
            evidence.nonce, node.request.spki, evidence.manifest
        )
    again = nodes[0].tpm.tpm
    assert again.ak_public() == nodes[0].tpm.ak_public


@pytest.mark.tpm
@needs_swtpm
@needs_corpus
def test_an_unrestricted_key_of_a_tpm_differs_in_nothing_else(pool):
    usual = tpm2.parse_public(pool.node().tpm.ak_public).attributes
    loose = tpm2.parse_public(pool.unrestricted().tpm.ak_public).attributes
    assert loose | tpm2.TpmaObject.RESTRICTED == usual
    assert loose != usual


@pytest.mark.tpm
@needs_swtpm
@needs_corpus
def test_only_the_bank_that_is_asked_for_is_extended(pool):
    quoted = pool.node().tpm.quote_of(b"", HashAlg.SHA384, QUOTED_PCRS)
    assert set(quoted.values) == {bytes(48)}


@pytest.mark.tpm
@needs_swtpm
@needs_corpus
def test_a_boot_that_a_tpm_cannot_repeat_is_refused(boots, room):
    from catena.lab.fleet.chip import BootNotRepeated

    other = replace(boots[0], pcrs=(b"\3" * 32, *boots[0].pcrs[1:]))
    with pytest.raises(BootNotRepeated, match="cannot repeat") as refused:
        run(2, (other,), Plan(seconds=1), Own(), quiet, connections=1, tpms=1)
    assert "PCRs [0]" in refused.value.got
    assert "--tpm software" in refused.value.remedy


@needs_corpus
def test_what_needs_the_keys_is_left_out_for_tpms_and_nothing_else(boots):
    from catena.lab.fleet.hostiletpm import LEFT_OUT, TPM_CASES

    assert {case.name for case in CASES} == {*LEFT_OUT, *(case.name for case in TPM_CASES)}
    codes = {case.name: (case.codes, case.verdict) for case in CASES}
    assert all(codes[case.name] == (case.codes, case.verdict) for case in TPM_CASES)
    source = SoftwareKeys(boots, SoftwareMaker.make(utc_now()))
    exchange = Exchange(source.node(), bytes(56), source.node(), bytes(56), None)
    [relabelled] = [case for case in TPM_CASES if case.name == "relabelled"]
    with pytest.raises(TypeError):
        relabelled.make(exchange)


@pytest.mark.tpm
@needs_swtpm
@needs_corpus
def test_a_tpm_signs_no_forged_quote(pool):
    exchange = Exchange(pool.node(), bytes(56), pool.node(), bytes(56), None)
    [clock_back] = [case for case in CASES if case.name == "clock-back"]
    with pytest.raises(TypeError):
        clock_back.make(exchange)


@pytest.mark.tpm
@needs_swtpm
@needs_corpus
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["--tpm swtpm --tpms 2", "--generators 2"])
def test_a_fleet_that_is_stopped_leaves_nothing(folder, room, number, kind, monkeypatch):
    monkeypatch.setattr("living.PATIENCE", 60.0)  # TPMs, keys and a server are made first
    words = ("--nodes", "4", "--seconds", "600", "--logs", folder)
    child = subprocess.Popen(
        catena_command("lab", "fleet", *kind.split(), *words),
        env={**os.environ, "TMPDIR": str(room)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await_that(lambda: _appraisals(room) > 4, "load")
        left = [*processes_naming(room), *_children(child.pid)]
        assert len(set(left)) == 3
        child.send_signal(number)
        assert child.wait(30) == -number
    finally:
        child.kill()
        child.wait()
    assert_gone(left)


def _children(pid):
    """TPMs and a server, or generators and a server."""
    return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def _appraisals(room):
    """How many attestations the server in the room has concluded."""
    for file in room.glob("catena-fleet-*/server/catena.db"):
        with closing(sqlite3.connect(file)) as database, suppress(sqlite3.OperationalError):
            return database.execute("SELECT count(*) FROM appraisals").fetchone()[0]
    return 0


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A lab's home, with the database of its server."""
    monkeypatch.setenv("CATENA_HOME", str(tmp_path / "lab"))
    server = tmp_path / "lab/server"
    server.mkdir(parents=True)
    Database.create(f"sqlite:///{server}/catena.db").close()
    return server


def _recorded(server, log, verdict, number=1):
    database = Database.open(f"sqlite:///{server}/catena.db")
    with database.transaction() as tx:
        digest = tx.logs.put("tcg2", log)
        node = make_node(
            number,
            name=f"node-{number}",
            role="worker",
            approved_at=NOON,
            last_attested=NOON,
            last_verdict=verdict,
            boot_log=digest,
        )
        tx.nodes.insert(node)
    database.close()


@needs_corpus
def test_without_logs_the_boots_of_the_lab_are_driven(lab, capsys):
    _recorded(lab, corpus_boot(TRUSTED[0]).log, "trusted")
    _recorded(lab, corpus_boot("A_nosb_uki").log, "untrusted", 2)
    before = (lab / "catena.db").read_bytes()
    assert run_command(["lab", "fleet", "--nodes", "2", "--seconds", "1", "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["boots"] == ["node-1"]
    assert (report["tpms"], report["keys"]) == (0, "software keys, no TPM")
    assert report["left_out"] == {}
    assert (lab / "catena.db").read_bytes() == before


def test_a_lab_without_boots_is_an_error_with_a_remedy(lab, capsys):
    _recorded(lab, b"log", "untrusted")
    with pytest.raises(NoLabBoots, match="no machine of the lab was trusted"):
        lab_boots(lab)
    assert run_command(["lab", "fleet"]) == ExitCode.NOT_FOUND
    assert "--logs FOLDER" in capsys.readouterr().err


def test_no_lab_is_an_error_and_none_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CATENA_HOME", str(tmp_path / "lab"))
    assert run_command(["lab", "fleet"]) == ExitCode.NOT_FOUND
    assert "catena lab demo" in capsys.readouterr().err
    assert not (tmp_path / "lab").exists()


def test_a_lab_of_an_earlier_version_is_left_alone(lab):
    with closing(sqlite3.connect(lab / "catena.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v0011'")
        database.execute("UPDATE schema_version SET version = 11")
    with pytest.raises(NoLabBoots, match="earlier version"):
        lab_boots(lab)


@needs_corpus
def test_without_the_tpm_library_it_is_named(folder, tmp_path):
    code = "import sys; sys.modules['tpm2_pytss'] = None; from catena.cli.main import main; main()"
    words = ("lab", "fleet", "--tpm", "swtpm", "--logs", str(folder))
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.INTERNAL
    assert "catena[agent]" in done.stderr
    assert "defect" not in done.stderr.lower()


def test_a_number_of_tpms_needs_tpms(tmp_path, capsys):
    words = ["lab", "fleet", "--logs", str(tmp_path), "--tpms", "2"]
    assert run_command(words) == ExitCode.USAGE
    assert "--tpm swtpm" in capsys.readouterr().err
