from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
from dataclasses import replace
from xml.etree import ElementTree as ET

import msgspec
import pytest

from appraise.forged import CORPUS, corpus_boot
from catena.cli.main import run as run_command
from catena.errors import ExitCode
from catena.formats import tpm2
from catena.keys.protect import make_credential
from catena.lab.fleet import hostile
from catena.lab.fleet.boots import NoRecordedBoots, recorded_boots
from catena.lab.fleet.crowd import GeneratorDied
from catena.lab.fleet.hostile import CASES, ENROLMENT_CASE
from catena.lab.fleet.load import Plan
from catena.lab.fleet.page import plot
from catena.lab.fleet.running import Own, UnusableMaker, maker_in, run
from catena.lab.fleet.simulation import latency_of
from catena.lab.fleet.softtpm import (
    AK_ATTRIBUTES,
    ForeignCredential,
    SoftwareMaker,
    SoftwareTpm,
    endorsement_keys,
    utc_now,
)
from recorded import TRUSTED, record_boots

needs_corpus = pytest.mark.skipif(
    not (CORPUS / "boots").is_dir(), reason="the corpus of real boots is not here"
)


def quiet(phase: str, done: float, total: float) -> None:
    """A progress that nobody watches."""


@pytest.fixture(scope="module")
def boots(tmp_path_factory):
    return record_boots(tmp_path_factory.mktemp("boots"))


@pytest.fixture(scope="module")
def tpms():
    maker, now = SoftwareMaker.make(utc_now()), utc_now()
    keys = itertools.islice(endorsement_keys(), 4)
    return [SoftwareTpm(key, maker.endorse(key.public_key(), now), ()) for key in keys]


@needs_corpus
def test_recorded_logs_replay_to_the_registers_of_the_boot(boots):
    for boot in recorded_boots(boots):
        assert boot.pcrs == corpus_boot(boot.name).values


def test_a_folder_without_boots_is_an_error(tmp_path):
    with pytest.raises(NoRecordedBoots):
        recorded_boots(tmp_path)


def test_no_two_endorsement_keys_are_alike(tpms):
    assert len({tpm.ek_public() for tpm in tpms}) == len(tpms)
    assert len({tpm.ak_public() for tpm in tpms}) == len(tpms)


def test_software_keys_open_the_credentials_that_are_made_for_them(tpms):
    from catena.formats.nodeapi import EnrollChallenge

    one, other = tpms[:2]
    ek, name = tpm2.parse_public(one.ek_public()), tpm2.parse_public(one.ak_public()).name()
    blob, secret = make_credential(ek, name, b"s" * 32, seed=b"d" * 32)
    challenge = EnrollChallenge(
        node_id=hashlib.sha256(one.ek_public()).hexdigest(),
        credential_blob=blob,
        encrypted_secret=secret,
        ticket=b"t",
    )
    assert one.activate(challenge).secret == b"s" * 32
    blob, secret = make_credential(
        ek, tpm2.parse_public(other.ak_public()).name(), b"s" * 32, seed=b"d" * 32
    )
    moved = msgspec.structs.replace(challenge, credential_blob=blob, encrypted_secret=secret)
    with pytest.raises(ForeignCredential):
        one.activate(moved)


@needs_corpus
def test_a_fleet_attests_and_every_attack_is_refused_as_it_must(boots):
    """The real server over TLS; connections and time are enough for each attack to be made."""
    plan = Plan(seconds=6, hostile=0.9)
    report = run(8, recorded_boots(boots), plan, Own(), quiet, connections=4)
    assert report.holds, (report.wrong, report.examples)
    assert report.attestations > 0
    assert report.first.count == 8 + 4
    assert set(report.hostile) == {*(case.name for case in CASES), ENROLMENT_CASE}
    assert report.server_cpu_ms > 0
    assert report.generator_cpu_ms > 0
    assert report.files_after <= report.files_before + 8
    assert "no TPM" in report.keys


@needs_corpus
def test_several_generators_share_a_fleet(boots):
    """Every node attests, each attack is refused, and what they all found is in one report."""
    plan, told = Plan(seconds=4, hostile=0.5), {}
    report = run(
        *(9, recorded_boots(boots), plan, Own()),
        lambda phase, done, total: told.__setitem__(phase, (done, total)),
        connections=4,
        generators=2,
    )
    assert report.holds, (report.wrong, report.examples)
    assert (report.generators, report.nodes, report.connections) == (2, 9, 4)
    assert report.first.count == 9 + 4
    assert told["first attestations"] == (13, 13)
    assert report.attestations == report.latency.count > 0
    assert report.generator_cpu_ms > 0
    assert multiprocessing.active_children() == []


@needs_corpus
def test_a_generator_that_dies_or_fails_ends_the_others(boots, monkeypatch):
    recorded, plan = recorded_boots(boots), Plan(seconds=600)
    monkeypatch.setattr("catena.lab.fleet.load.NonceRequest", lambda **_: os._exit(3))
    with pytest.raises(GeneratorDied, match="ended"):
        run(4, recorded, plan, Own(), quiet, connections=2, generators=2)
    monkeypatch.setattr(SoftwareTpm, "enrolment", lambda _: b"")
    with pytest.raises(GeneratorDied) as failed:
        run(4, recorded, plan, Own(), quiet, connections=2, generators=2)
    assert "enrolment was refused" in failed.value.got
    assert multiprocessing.active_children() == []


@needs_corpus
def test_an_attack_that_ends_otherwise_is_a_wrong_answer(boots, monkeypatch):
    """As the honest evidence of a node is no attack, the server does not refuse it."""
    honest = replace(CASES[5], make=lambda one: one.node.evidence(one.nonce))
    monkeypatch.setattr("catena.lab.fleet.source.SoftwareKeys.cases", (honest,))
    report = run(
        2, recorded_boots(boots), Plan(seconds=1, hostile=0.9), Own(), quiet, connections=1
    )
    assert not report.holds
    assert report.wrong[f"hostile request got through: {honest.name}"] > 0


@needs_corpus
def test_a_boot_that_the_policy_refuses_makes_the_command_fail(tmp_path, capsys):
    """Secure Boot is off in this one."""
    boots = record_boots(tmp_path / "boots", ("A_nosb_uki",))
    words = ["lab", "fleet", "--nodes", "2", "--seconds", "1", "--logs", str(boots), "-o", "json"]
    with pytest.raises(SystemExit) as end:
        run_command(words)
    assert end.value.code == ExitCode.UNTRUSTED
    assert set(json.loads(capsys.readouterr().out)["wrong"]) == {"an honest node was not trusted"}


@needs_corpus
def test_the_command_shows_a_table_a_histogram_and_writes_a_page(boots, tmp_path, capsys):
    words = ["lab", "fleet", "--nodes", "4", "--seconds", "1", "--rate", "20"]
    out = tmp_path / "fleet.html"
    assert run_command([*words, "--logs", str(boots), "--report", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "software keys, no TPM" in shown
    assert "█" in shown
    assert "20/s wanted" in shown
    text = out.read_text()
    assert all(name in text for name in TRUSTED)
    ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--servers", "2"], "database:"),
        (["--generators", "2", "--nodes", "3"], "two nodes"),
        (["--generators", "2", "--tpm", "swtpm"], "software keys"),
        (["--rate", "5", "--hostile", "1"], "rate"),
        (["--server", "https://127.0.0.1:1"], "--maker"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, capsys, words, complaint):
    assert run_command(["lab", "fleet", "--logs", str(tmp_path), *words]) == ExitCode.USAGE
    assert complaint in capsys.readouterr().err


def test_latency_counts_every_attestation_once():
    latency = latency_of([0.0004, 0.001, 0.0011, 0.05, 7.0])
    assert sum(one.count for one in latency.histogram) == latency.count == 5
    assert latency.histogram[0].count == 2
    assert latency.histogram[-1].count == 1
    assert latency.most == 7000
    assert latency_of([]).count == 0


def test_a_plot_without_attestations_is_still_a_plot():
    ET.fromstring(plot(latency_of([])))


def test_the_authority_of_software_keys_is_kept_and_checked(tmp_path):
    made = maker_in(tmp_path / "maker")
    again = maker_in(tmp_path / "maker")
    assert made.certificate == again.certificate
    assert (tmp_path / "maker/maker.key").stat().st_mode & 0o077 == 0
    (tmp_path / "maker/maker.key").write_text("no key")
    with pytest.raises(UnusableMaker):
        maker_in(tmp_path / "maker")


def test_an_unrestricted_key_differs_in_nothing_else():
    assert hostile.UNRESTRICTED | tpm2.TpmaObject.RESTRICTED == AK_ATTRIBUTES
    assert len({case.name for case in CASES}) == len(CASES)
