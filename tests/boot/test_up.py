"""`catena lab up` after the demo: the same machine again, its way back in, and its end."""

from __future__ import annotations

import os
import signal
import time

import msgspec
import pytest

from catena.lab.units import Running, Unit
from living import children, processes_naming

pytestmark = pytest.mark.boot


@pytest.fixture(scope="module", autouse=True)
def down_afterwards(story):
    """These tests start from a lab that is down, and leave one."""
    assert processes_naming(story.home) == {}
    yield
    story.catena("lab", "down")
    assert processes_naming(story.home) == {}


@pytest.fixture
def up(story):
    """The demo's lab, up again; the attacks had left its node untrusted."""
    if not Unit(story.home / "run", "node-1").running():
        story.catena("lab", "down")
        answer = story.catena("lab", "up", "--yes")
        assert answer.status == 0, (answer.document, answer.errors[-3000:])
    return story.catena("node", "show", "node-1").document


def test_node_is_trusted_again_only_after_a_person_readmitted_it(story, up):
    assert up["state"] == "trusted"
    listed = story.catena("audit", "verify", "--entries").document["entries"]
    assert any("readmitted" in entry["summary"] for entry in listed)


def test_explain_names_a_reference_for_every_event(story, up):
    answer = story.catena("node", "explain", "node-1")
    assert answer.status == 0
    events = answer.document["events"]
    assert len(events) > 40
    assert all({"pcr", "type", "digest", "claimed_by"} <= event.keys() for event in events)
    assert all(event["claimed_by"] for event in events)
    claimed = {event["claimed_by"].split(" ")[0].split(":")[0] for event in events}
    assert claimed == {"release", "keyset", "firmware", "rule"}


def test_predicted_pcrs_are_what_the_tpm_held(story, up):
    """The release said so before anything booted; a trusted verdict means the quote agreed."""
    reference = next(
        one for one in story.catena("reference", "list").document if one["kind"] == "release"
    )
    assert reference["events"] > 15
    explained = story.catena("node", "explain", "node-1").document
    assert explained["verdict"] == "trusted"
    assert explained["facts"]["secure_boot"] is True


def test_unknown_node_is_its_own_exit_code(story, up):
    answer = story.catena("node", "show", "no-such-node")
    assert answer.status == 12
    assert answer.document["error"]["code"] == "unknown-node"


def test_second_up_is_refused_and_changes_nothing(story, up):
    before = processes_naming(story.home)
    answer = story.catena("lab", "up")
    assert answer.status == 2
    assert answer.document["error"]["code"] == "already-running"
    assert answer.document["error"]["remedy"]
    assert len(processes_naming(story.home)) >= len(before) > 0


def test_machine_whose_tpm_dies_goes_off_and_leaves_nothing(story, up):
    state = story.home / "run/node-1.json"
    supervisor = msgspec.json.decode(state.read_bytes(), type=Running).pid
    os.kill(children(supervisor)["swtpm"], signal.SIGKILL)
    unit = Unit(story.home / "run", "node-1")
    deadline = time.monotonic() + 20
    while unit.running() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not unit.running()
    left = [" ".join(words) for words in processes_naming(story.home).values()]
    assert not [line for line in left if "qemu" in line or "swtpm" in line]
    assert "swtpm" in unit.log.read_text()
    down = story.catena("lab", "down")
    assert down.document["stopped"] == ["server"]
    assert processes_naming(story.home) == {}
