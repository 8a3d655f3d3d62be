"""Every check of TRUST, attestation step 5, is missed by a test when it is taken out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from appraise.forged import CORPUS
from security import mutations
from security.mutations import CALLS, CHECKS, QUOTE, caught_by

STEPS = "abcdefghij"
SECONDS = 900

pytestmark = pytest.mark.skipif(
    not (CORPUS / "boots").is_dir(), reason="the corpus of real boots is not here"
)


@pytest.mark.parametrize("step", STEPS)
def test_no_check_of_this_step_can_be_taken_out_unnoticed(step):
    command = [sys.executable, mutations.__file__, "-o", "json", step]
    folders = (Path(mutations.__file__).parents[1], *map(Path, sys.path))
    path = os.pathsep.join(str(one) for one in folders)
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found
    assert all(one["step"] == step and one["caught_by"] for one in found)
    for one in found:
        print(f"5{step}  {one['mutation']}: {one['caught_by']}")


def test_every_step_has_mutations_and_every_name_is_a_real_one():
    found = list(mutations.mutations())
    assert {one.check.step for one in found} == set(STEPS)
    # A function without a refusal would be listed and never tried.
    assert {one.check.where for one in found} == {
        *(check.where for check in CHECKS),
        mutations.PATH,
    }
    assert len(CALLS) > 0


def test_a_change_that_breaks_nothing_is_told():
    assert not caught_by(None, (QUOTE,))
