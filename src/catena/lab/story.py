"""The main job, told: from keys to a node with a secret, then a dozen attacks that end nowhere.

Every line is a command that works alone or a check that can fail; nothing is narrated that
did not happen.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from catena.errors import ExitCode, Refusal
from catena.lab import attacks, datadisk, orders
from catena.lab.narration import Narrator
from catena.lab.operator import CommandRefused, Operator
from catena.lab.outcomes import Attack, Outcome, Where
from catena.lab.preparation import accept_references, prepare
from catena.lab.running import Lab, Node
from catena.lab.workspace import AGENT_STARTED, NODE, RELEASE, ROLE, SECRET, Workspace

BOOT_SECONDS = 240.0
_FIRMWARE = "lab-firmware"
_STARTS = 2
"""Containers that the story starts before anything is attacked."""


class StoryBroken(Refusal):
    """A check of the story did not hold."""

    code = "story-broken"
    remedy = "Keep the lab folder: its consoles and logs say what happened."


class AttackTold(msgspec.Struct, frozen=True, kw_only=True):
    """One attack of the story and how it ended."""

    attack: str
    expected: str
    stopped_by: str
    seen: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The story in one table: the happy path, the attacks, the checkpoint."""

    node: str
    release: str
    secret_opened: bool
    attacks: tuple[AttackTold, ...]
    log_entries: int
    log_root: str
    seconds: int
    folder: str


def tell(workspace: Workspace, narrator: Narrator) -> Summary:
    """Run the whole demo. Raises at the first thing that does not hold."""
    operator = Operator(workspace.profile)
    lab = Lab(workspace, operator)
    try:
        narrator.chapter("The enterprise makes its keys and its operating system")
        prepare(workspace, operator, narrator)
        narrator.chapter("A machine boots, proves itself, joins, and gets its secret")
        serve(lab, narrator)
        join(lab, narrator)
        narrator.chapter("A dozen attacks")
        told = attack_all(lab, narrator, attacks.GALLERY)
        narrator.chapter("The log")
        size, root = _audit(lab, narrator)
    finally:
        lab.down()
    return Summary(
        node=NODE,
        release=RELEASE,
        secret_opened=True,
        attacks=told,
        log_entries=size,
        log_root=root,
        seconds=round(narrator.total()),
        folder=str(workspace.folder),
    )


def show(summary: Summary, narrator: Narrator) -> None:
    """The summary as a table for people."""
    rows: list[tuple[str, ...]] = [
        ("happy path", f"{summary.node} joined with release {summary.release}, secret opened", "✓")
    ]
    rows += [
        (f"attack {told.attack}", f"stopped by {told.stopped_by}", "✓ held")
        for told in summary.attacks
    ]
    checkpoint = f"{summary.log_entries} entries, root {summary.log_root[:16]}…"
    rows.append(("checkpoint", checkpoint, "✓ consistent"))
    narrator.console.print()
    narrator.table(("what", "how it ended", ""), rows)
    narrator.console.print(
        f"total {summary.seconds} s; keys, release, consoles and log are in {summary.folder}"
    )


def serve(lab: Lab, narrator: Narrator) -> None:
    """Start the trust service, and tell it what may boot."""
    with narrator.step("trust service started") as step:
        lab.start_server()
        step.checked(f"https://127.0.0.1:{lab.server_port()}")
    accept_references(lab.workspace, lab.operator, narrator)


def join(lab: Lab, narrator: Narrator) -> None:
    """Boot the first machine and take it from stranger to trusted node with its secret."""
    stranger = boot_first_machine(lab, narrator)
    capture_firmware(lab, narrator, stranger)
    approve(lab, narrator, stranger)
    _container_runs(lab, narrator)
    _containerd_runs(lab, narrator)
    _keeps_attesting(lab, narrator)
    _containers_explained(lab, narrator)


def bring_up(lab: Lab, narrator: Narrator, *, yes: bool) -> Node:
    """Boot the first machine of a lab that may have been up before; returns its node.

    A machine that is new waits for a person, unless ``yes`` says that one agreed.
    """
    if lab.node(NODE) is None:
        stranger = boot_first_machine(lab, narrator)
        if not yes or stranger["state"] == "trusted":
            return stranger
        capture_firmware(lab, narrator, stranger)
        return approve(lab, narrator, stranger)
    before = lab.last_attested(NODE)
    with narrator.step("machine boots again") as step:
        lab.start_machine(NODE)
        node = lab.wait_attested(NODE, since=before, seconds=BOOT_SECONDS)
        step.checked(f"verdict {node['last_verdict']}, {NODE} is {node['state']}")
    if yes and node["last_verdict"] == "trusted" and node["state"] == "untrusted":
        node = _readmit(lab, narrator)
    return node


def _readmit(lab: Lab, narrator: Narrator) -> Node:
    """A machine that was once untrusted proves itself again, and a person lets it back in."""
    with narrator.step("node re-admitted") as step:
        lab.operator.run("node", "approve", NODE)
        node = _wait_trusted(lab)
        step.checked(f"{NODE} is {node['state']} again")
    return node


def boot_first_machine(lab: Lab, narrator: Narrator) -> Node:
    """Boot until the machine has enrolled and was appraised for the first time."""
    with narrator.step("machine boots") as step:
        known = {node["id"] for node in lab.nodes()}
        lab.start_machine(NODE)
        step.doing("firmware checks the UKI's signature, kernel checks every block")
        lab.wait_for_console(
            NODE, lambda text: AGENT_STARTED in text, seconds=BOOT_SECONDS, what="agent"
        )
        step.checked("firmware accepted the signed UKI, the kernel its verity root")
    with narrator.step("TPM enrols") as step:
        stranger = lab.wait_stranger(NODE, known, seconds=BOOT_SECONDS)
        step.checked(f"EK vouched for by {stranger['endorsed_by']}")
        waits = ": a person must approve" if stranger["state"] == "pending" else ""
        step.checked(f"node {stranger['id'][:12]}…, {stranger['state']}{waits}")
    return stranger


def capture_firmware(lab: Lab, narrator: Narrator, stranger: Node) -> None:
    """Look at the first boot's unclaimed firmware events, and accept them as a reference."""
    with narrator.step("first boot explained") as step:
        explained = lab.operator.run("node", "explain", stranger["id"])
        events = explained["events"]
        unclaimed = [event for event in events if event["claimed_by"] is None]
        elsewhere = sorted({event["pcr"] for event in unclaimed} - {0, 1, 2, 3, 6})
        if elsewhere:
            raise StoryBroken(f"events of PCRs {elsewhere} have no reference")
        step.checked(f"{len(events)} events, {len(events) - len(unclaimed)} claimed")
        step.checked(f"{len(unclaimed)} unclaimed, all of them the firmware's own (PCR 0, 1)")
    with narrator.step("firmware captured") as step:
        lab.operator.run("reference", "capture", stranger["id"], "--name", _FIRMWARE, "--yes")
        step.checked(f"PCR 0 and 1 of this boot are now reference {_FIRMWARE}")


def approve(lab: Lab, narrator: Narrator, stranger: Node) -> Node:
    """Approve the machine and wait until it has attested as trusted."""
    with narrator.step("node approved") as step:
        lab.operator.run("node", "approve", stranger["id"], "--name", NODE, "--role", ROLE)
        node = _wait_trusted(lab)
        explained = lab.operator.run("node", "explain", NODE)
        unclaimed = [event for event in explained["events"] if event["claimed_by"] is None]
        if unclaimed:
            raise StoryBroken(f"a trusted boot has {len(unclaimed)} unclaimed events")
        step.checked(f"name {NODE}, role {ROLE}")
        step.checked(f"all {len(explained['events'])} events claimed, verdict trusted")
        step.checked(f"certificate until {node['certificate_expires']}")
    return node


def _wait_trusted(lab: Lab) -> Node:
    return lab.wait_for_node(
        lambda nodes: next(
            (one for one in nodes if one["name"] == NODE and one["state"] == "trusted"), None
        ),
        machine=NODE,
        seconds=BOOT_SECONDS,
        what="trusted attestation",
    )


def _container_runs(lab: Lab, narrator: Narrator) -> None:
    with narrator.step("signed container started with the secret") as step:
        orders.give(lab, NODE, "await", SECRET, seconds=BOOT_SECONDS)
        answer = orders.give(lab, NODE, "run", "web", seconds=BOOT_SECONDS)
        _proven(lab, answer)
        step.checked(f"it proved that it holds {SECRET}, whose value is not on the console")
        step.checked(f"gate, wrapper and runc took {answer.seconds:.1f} s")


def _containerd_runs(lab: Lab, narrator: Narrator) -> None:
    with narrator.step("the same image started by containerd") as step:
        answer = orders.give(lab, NODE, "containerd", "web", seconds=BOOT_SECONDS)
        _proven(lab, answer)
        step.checked("traced through its snapshots to the same layers, and proved the same")


def _proven(lab: Lab, answer: orders.Answer) -> None:
    """The container of this order held the secret, and nobody saw it."""
    value = (lab.workspace.folder / "secret-for-comparison").read_bytes()
    proof = hashlib.sha256(value + datadisk.LABEL.encode()).hexdigest()
    if answer.said.split() != ["proof", proof]:
        raise StoryBroken("the container does not hold the secret", got=answer.reason)
    if value.decode() in lab.console(NODE):
        raise StoryBroken("the secret itself is on the console")


def _containers_explained(lab: Lab, narrator: Narrator) -> None:
    with narrator.step("containers explained") as step:
        found = lab.operator.run("node", "explain", NODE)["containers"]
        unclaimed = [event for event in found["events"] if event["claimed_by"] is None]
        if found["started"] != _STARTS or unclaimed:
            raise StoryBroken(f"{found['started']} starts, {len(unclaimed)} unclaimed events")
        publishers = {event["publisher"] for event in found["events"] if event["publisher"]}
        step.checked(f"{found['records']} records replay to the containers' PCR, all claimed")
        step.checked(f"{found['started']} started, signed by {', '.join(sorted(publishers))}")


def _keeps_attesting(lab: Lab, narrator: Narrator) -> None:
    with narrator.step("attestation repeats") as step:
        first = lab.last_attested(NODE)
        again = lab.wait_attested(NODE, since=first, seconds=BOOT_SECONDS)
        step.checked(f"every {lab.workspace.interval} s; last at {again['last_attested']}")


def attack_all(lab: Lab, narrator: Narrator, gallery: Sequence[Attack]) -> tuple[AttackTold, ...]:
    """Run attacks, those on the first machine beside those on others; tell them in order."""
    lanes = [
        [attack for attack in gallery if attack.where is not Where.ELSEWHERE],
        [attack for attack in gallery if attack.where is Where.ELSEWHERE],
    ]
    if not any(attack.where is Where.ON_FIRST for attack in gallery):
        lab.unit(NODE).stop()
    with narrator.step("attacks run, two machines at a time") as step:
        step.doing("; ".join(attack.does for attack in gallery))
        with ThreadPoolExecutor(len(lanes)) as pool:
            done = [pool.submit(_attack_lane, lab, lane) for lane in lanes]
            try:
                outcomes = {outcome.attack: outcome for lane in done for outcome in lane.result()}
            except BaseException:
                lab.abandon()  # or the other lane would go on for minutes
                raise
        step.checked(f"{len(outcomes)} of {len(gallery)} held")
    told = tuple(_told(attack, outcomes[attack.name]) for attack in gallery)
    for attack, ended in zip(gallery, told, strict=True):
        narrator.line(attack.does, [f"stopped by {ended.stopped_by}", ended.seen])
    return told


def _attack_lane(lab: Lab, lane: Sequence[Attack]) -> list[Outcome]:
    """All of these, one after the other; those that need the running machine share its boot."""
    running = [attack for attack in lane if attack.where is Where.ON_FIRST]
    outcomes = []
    if running:
        with attacks.first_machine_on(lab):
            outcomes += [attacks.run(attack, lab) for attack in running]
    outcomes += [attacks.run(attack, lab) for attack in lane if attack not in running]
    return outcomes


def _told(attack: Attack, outcome: Outcome) -> AttackTold:
    return AttackTold(
        attack=attack.name,
        expected=attack.expected,
        stopped_by=outcome.stopped_by,
        seen=outcome.seen,
    )


def _audit(lab: Lab, narrator: Narrator) -> tuple[int, str]:
    words = ("--key", lab.workspace.keys / "log.pub")
    with narrator.step("audit log verified offline") as step:
        summary = lab.operator.run("audit", "verify", lab.workspace.log, *words)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(summary["kinds"].items()))
        step.checked(f"{summary['size']} entries: {kinds}")
    with narrator.step("a copy of the log with one byte changed") as step:
        copy = lab.workspace.folder / "tampered-log"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(lab.workspace.log, copy)
        _change_one_byte(copy)
        try:
            lab.operator.run("audit", "verify", copy, *words)
        except CommandRefused as error:
            if error.status != ExitCode.LOG_INCONSISTENT:
                raise
            step.checked(f"refused, exit {error.status}: {error.said}")
        else:
            raise StoryBroken("a changed log verifies")
        shutil.rmtree(copy)
    return int(summary["size"]), str(summary["root"])


def _change_one_byte(log: Path) -> None:
    tile = max((path for path in log.rglob("tile/**/*") if path.is_file()), key=_size)
    content = bytearray(tile.read_bytes())
    content[len(content) // 2] ^= 1
    tile.write_bytes(content)


def _size(path: Path) -> int:
    return path.stat().st_size
