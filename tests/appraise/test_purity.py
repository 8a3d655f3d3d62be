"""The judgement is pure: nothing but its arguments decides, and it asks nobody else.

Whoever replays a verdict years later, on another machine, must get the same bytes. So the same
evidence, honest or forged, is judged twice in this process and once more in processes that differ
in everything a pure function must not see: hash seed, time zone, locale, working folder. There,
an audit hook (PEP 578) ends the process at the first file, socket, process or import; Python's
clock raises no audit event, so the clocks are replaced by ones that fail.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import catena
from appraise.forged import Exchange, judge, references_of
from appraise.gatelog import BANKS, POLICY, Recording
from catena.errors import CatenaError
from changed import replace

TESTS = Path(__file__).resolve().parents[1]
BOOT = "B_sb_own_uki"
CASES = (None, *range(40, 9376, 389))
"""Bytes of the boot log that are flipped, one in each case; None for the honest log."""
RECORD_CASES = (None, *range(0, 2900, 97))
"""The same for the record of the container gate."""

SHOWN = ("index", "pcr", "type", "digest", "description", "claimed_by", "nearest")
"""What is told of an event."""

SURROUNDINGS = (
    {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
    {"PYTHONHASHSEED": "2", "TZ": "America/Los_Angeles", "LC_ALL": "C.UTF-8"},
)

ALONE = """
import sys, time, random, os
from appraise import test_purity as purity
from appraise.forged import corpus_boot, references_of

boot = corpus_boot(purity.BOOT)
references = references_of(boot, container_policies=(purity.POLICY,))
exchanges = [purity.altered(boot, case, 0x55) for case in purity.CASES]
exchanges += [purity.recorded(boot, case, 0x55) for case in purity.RECORD_CASES]
evidence = [exchange.evidence() for exchange in exchanges]
for one in evidence:
    purity.verdict(one, references)  # whatever is loaded or compiled on first use is by now

def refuse(*_, **__):
    raise SystemExit("the judgement asked for time or randomness")

def hook(event, arguments):
    if event.partition(".")[0] in {"open", "socket", "subprocess", "os", "import", "sqlite3"}:
        raise SystemExit(f"the judgement reached outside: {event} {arguments}")

for name in ("time", "monotonic", "time_ns", "monotonic_ns", "perf_counter"):
    setattr(time, name, refuse)
os.urandom = random.random = refuse
sys.addaudithook(hook)
digests = [purity.verdict(one, references).hex() for one in evidence]
sys.stdout.write("\\n".join(digests))
"""


def altered(boot, position: int | None, mask: int) -> Exchange:
    """The boot with one byte of its log changed, signed by the node as its own."""
    log = bytearray(boot.log)
    if position is not None:
        log[position % len(log)] ^= mask
    return Exchange(replace(boot, log=bytes(log)))


def recorded(boot, position: int | None, mask: int) -> Exchange:
    """The boot with containers; their record has one byte changed, but is what was extended."""
    recording = Recording().begun().create().exec().deny().create("x", publisher="x").exit()
    log = bytearray(recording.data)
    if position is not None:
        log[position % len(log)] ^= mask
    values = tuple(recording.values[bank] for bank in BANKS)
    return Exchange(replace(boot, containers=bytes(log), container_values=values))


def verdict(evidence, references) -> bytes:
    """Digest of all that an appraisal says, or of its refusal."""
    encode = msgspec.json.Encoder(order="deterministic").encode
    try:
        found = judge(evidence, references)
    except CatenaError as error:
        return hashlib.sha256(encode(error.as_dict())).digest()
    events = [[getattr(event, name) for name in SHOWN] for event in found.events]
    said = [found.verdict, found.reasons, found.facts, events, found.release, found.bank]
    return hashlib.sha256(encode(said)).digest()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.none() | st.integers(0, 9375), mask=st.integers(1, 255))
def test_same_input_same_verdict_byte_for_byte(boot, references, position, mask):
    evidence = altered(boot, position, mask).evidence()
    assert verdict(evidence, references) == verdict(evidence, references_of(boot))


def test_nothing_outside_its_arguments_decides(boot, tmp_path):
    exchanges = [altered(boot, case, 0x55) for case in CASES]
    exchanges += [recorded(boot, case, 0x55) for case in RECORD_CASES]
    references = references_of(boot, container_policies=(POLICY,))
    here = [verdict(exchange.evidence(), references) for exchange in exchanges]
    assert len(set(here)) > 5  # the cases differ, so equal answers mean something
    for surroundings in SURROUNDINGS:
        done = subprocess.run(
            [sys.executable, "-c", ALONE],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, **surroundings, "PYTHONPATH": _path()},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.splitlines() == [digest.hex() for digest in here]


def _path() -> str:
    """The tests and this very catena, whatever the working folder."""
    return os.pathsep.join([str(TESTS), str(Path(catena.__file__).parents[1])])
