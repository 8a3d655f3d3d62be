"""What was predicted is what the TPM held: boots that differ, on real firmware, in every bank."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from told_story import CACHE

from catena.formats import tcglog
from catena.ids import HashAlg
from catena.lab.predictions import CASES
from catena.lab.probe import BANKS, read_report
from catena.measure.replay import replay

pytestmark = pytest.mark.boot

SECONDS = 1200
CASE_NAMES = [case.name for case in CASES]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """All boots, predicted and made once, by the command that an operator has for it."""
    home = tmp_path_factory.mktemp("predictions") / "lab"
    done = subprocess.run(
        [sys.executable, "-m", "catena.cli.main", "lab", "predict", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, "CATENA_HOME": str(home), "CATENA_CACHE": str(CACHE)},
    )
    document = json.loads(done.stdout) if done.stdout else None
    assert isinstance(document, list), (document, done.stderr[-2000:])
    return home, done.returncode, {case["name"]: case for case in document}


def test_every_boot_agrees_and_the_command_says_so(compared):
    _, status, cases = compared
    assert list(cases) == CASE_NAMES
    assert len(cases) >= 8
    assert all(case["agrees"] for case in cases.values())
    assert status == 0


@pytest.mark.parametrize("name", CASE_NAMES)
def test_every_pcr_of_a_boot_is_what_was_predicted(compared, name):
    case = compared[2][name]
    assert [one["pcr"] for one in case["pcrs"]] == list(range(16))
    for one in case["pcrs"]:
        assert set(one["held"]) == {bank.value for bank in BANKS}
        assert one["predicted"] == one["held"], (name, one["pcr"], one["reason"])


@pytest.mark.parametrize("name", CASE_NAMES)
def test_the_log_of_a_boot_replays_to_what_its_tpm_held(compared, name):
    """The comparison is with the TPM's own PCRs, and they are a story of this boot."""
    home, _, cases = compared
    report = read_report((home / "predictions" / name / "report.txt").read_bytes(), name)
    log = tcglog.parse(report.event_log)
    held = {one["pcr"]: one["held"] for one in cases[name]["pcrs"]}
    for bank in log.banks:
        replayed = replay(log, bank).pcrs
        for pcr in set(range(16)) - {10}:
            assert replayed[pcr] == report.pcrs[bank][pcr]
            assert held[pcr][bank] == replayed[pcr].hex()


def test_the_boots_differ(compared):
    """Agreement of boots that are all the same would prove little."""
    cases = compared[2]
    for pcr, least in ((4, 8), (7, 3), (9, 5), (11, 4), (12, 4), (14, 2)):
        values = {case["pcrs"][pcr]["held"][HashAlg.SHA256] for case in cases.values()}
        assert len(values) >= least, pcr
