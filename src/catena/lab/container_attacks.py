"""Attacks with containers, on a machine that runs: what an orchestrator or an intruder tries.

The machine boots as released, so nothing that boot proves has changed: its gate has to refuse,
or what the gate wrote has to give the machine away at its next attestation. Every refused
start is looked for in the transparency log.
"""

from __future__ import annotations

import re
import time
from functools import partial

from catena.lab import orders
from catena.lab.datadisk import ROGUE_RUNS
from catena.lab.machine import MachineTimeout
from catena.lab.orders import Answer
from catena.lab.outcomes import Attack, AttackSucceeded, Outcome, Where, require
from catena.lab.running import Lab, Node
from catena.lab.workspace import NODE

_SECONDS = 120.0
_POLL_SECONDS = 0.5
_CODE = re.compile(r"\[([a-z-]+)\]$")
_GATE_GONE = "gate-unreachable"
_RECORD_REASONS = ("container-record-altered", "container-record-unexplained")


def start(lab: Lab, bundle: str) -> Answer:
    """Have the first machine run a bundle of its disk."""
    return orders.give(lab, NODE, "run", bundle, seconds=_SECONDS)


def code_of(answer: Answer) -> str:
    """The code of the refusal, or nothing if nothing was refused."""
    found = _CODE.search(answer.reason)
    return found.group(1) if found and answer.status else ""


def _refused(name: str, code: str, lab: Lab) -> Outcome:
    """Start the bundle that has the attack's name."""
    before = len(_entries(lab))
    answer = start(lab, name)
    _require_refused(answer, code)
    _await_logged(lab, f"{answer.container}: {code}", since=before)
    return Outcome(name, "gate", answer.reason)


def _gate_killed(lab: Lab) -> Outcome:
    """Without a gate there is nobody who says yes."""
    before = len(_entries(lab))
    killed = orders.give(lab, NODE, "kill", "catena-gate", seconds=_SECONDS)
    require(f"the gate was not killed: {killed.error}", held=killed.status == 0)
    answer = start(lab, "web")
    _require_refused(answer, _GATE_GONE)
    _await_restart(lab)
    _await_logged(lab, "1 started", since=before)
    return Outcome("gate-killed", "wrapper", answer.reason)


def _record_edited(lab: Lab) -> Outcome:
    """One bit of what the gate wrote; the TPM remembers what it was told."""
    edited = orders.give(lab, NODE, "edit", "record", seconds=_SECONDS)
    require(f"the record was not edited: {edited.error}", held=edited.status == 0)
    node = _await_untrusted(lab)
    found = next(one for one in node["reasons"] if one["code"] in _RECORD_REASONS)
    again = lab.wait_attested(NODE, since=node["last_attested"], seconds=_SECONDS)
    held = again["certificate_expires"] == node["certificate_expires"]
    require("the node got another certificate", held=held)
    return Outcome("record-edited", "attestation", f"{found['message']} [{found['code']}]")


def _await_untrusted(lab: Lab) -> Node:
    """Wait until the first machine's record speaks against it."""
    deadline = time.monotonic() + _SECONDS
    while True:
        node = lab.node(NODE)
        if node and any(one["code"] in _RECORD_REASONS for one in node["reasons"]):
            require("the node keeps its standing", held=node["state"] == "untrusted")
            return node
        if time.monotonic() > deadline:
            raise AttackSucceeded("the node is judged as before by an edited record")
        time.sleep(_POLL_SECONDS)


def _require_refused(answer: Answer, code: str) -> None:
    require("a rogue program ran", held=ROGUE_RUNS not in answer.said)
    require(f"it started: {answer.said[:80]}", held=answer.status > 0)
    got = code_of(answer)
    require(f"refused as {got or answer.reason!r} instead of {code}", held=got == code)


def _await_restart(lab: Lab) -> None:
    """The service manager starts a killed gate again, which goes on with the record."""
    deadline = time.monotonic() + _SECONDS
    while start(lab, "web").status:
        if time.monotonic() > deadline:
            raise MachineTimeout(f"the gate is not back after {_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


def _await_logged(lab: Lab, words: str, *, since: int) -> None:
    """Wait until the log, from entry ``since`` on, tells of containers in these words."""
    deadline = time.monotonic() + _SECONDS
    while not any(
        entry["kind"] == "containers" and words in entry["summary"]
        for entry in _entries(lab)[since:]
    ):
        if time.monotonic() > deadline:
            raise MachineTimeout(f"no `{words}` in the log after {_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


def _entries(lab: Lab) -> list[dict[str, str]]:
    words = ("--key", lab.workspace.keys / "log.pub", "--entries")
    listed: list[dict[str, str]] = lab.operator.run("audit", "verify", lab.workspace.log, *words)[
        "entries"
    ]
    return listed


_REFUSED = (
    ("unsigned-image", "start an image that nobody signed", "image-unsigned"),
    ("other-publisher", "start an image that another publisher signed", "other-publisher"),
    (
        "copied-signature",
        "start an image whose signature is for another repository",
        "signed-for-another-repository",
    ),
    ("patched-layer", "change one bit of a layer after the image was pulled", "root-altered-layer"),
    ("other-argv", "start a signed image with another command line", "launch-argv"),
)

GALLERY = (
    *(
        Attack(
            name, does, f"the gate refuses: {code}", partial(_refused, name, code), Where.ON_FIRST
        )
        for name, does, code in _REFUSED
    ),
    Attack(
        "gate-killed",
        "kill the gate, then start a signed image",
        f"the wrapper refuses: {_GATE_GONE}",
        _gate_killed,
        Where.ON_FIRST,
    ),
    Attack(
        "record-edited",
        "change one bit of the record of what ran",
        "untrusted at the next attestation",
        _record_edited,
        Where.ON_FIRST,
    ),
)
