"""``catena lab``: real virtual machines with UEFI firmware and software TPMs, and attacks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from catena.cli import output
from catena.cli.home import home
from catena.cli.lab_fleet import fleet
from catena.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from catena.lab.predictions import Case
    from catena.lab.running import Lab
    from catena.lab.workspace import Workspace

F = TypeVar("F", bound=Callable[..., Any])


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What ``lab up`` and ``lab boot`` started."""

    folder: str
    server: str
    machine: str
    node: str | None
    state: str | None
    console: str


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """What ``lab down`` ended."""

    stopped: list[str]


DEMO_INTERVAL = 3
"""The demo waits for attestations; a fleet would not ask this often."""


def workspace_options(function: F, interval: int = 30) -> F:
    """``--dir``, ``--cache`` and ``--interval``, the same for every verb."""
    for option in (
        click.option(
            "--interval",
            type=click.IntRange(1, 3600),
            default=interval,
            show_default=True,
            help="Seconds between attestations (decided when the lab is made).",
        ),
        click.option(
            "--cache",
            type=click.Path(path_type=Path),
            default=lambda: Path(os.environ.get("CATENA_CACHE", ".cache")),
            show_default=".cache, or CATENA_CACHE",
            help="Downloads; can be deleted at any time.",
        ),
        click.option(
            "--dir",
            "folder",
            type=click.Path(path_type=Path),
            default=home,
            show_default=".catena, or CATENA_HOME",
            help="The lab's folder.",
        ),
    ):
        function = option(function)
    return function


@click.group(name="lab", cls=output.Noun)
def noun() -> None:
    """Boot real virtual machines, take them through the whole chain, attack them."""


noun.add_command(fleet)


@noun.command(
    exits=(ExitCode.UNTRUSTED,),
    examples=("catena lab demo", "catena lab demo --dir /tmp/lab --interval 5"),
)
@partial(workspace_options, interval=DEMO_INTERVAL)
@output.output_option
def demo(folder: Path, cache: Path, interval: int, *, as_json: bool) -> None:
    """Tell the main job end to end, then a dozen attacks; starts from an empty lab folder.

    Ends with 0 only if every step and every attack ended as it must.
    """
    from rich.console import Console

    from catena.lab.narration import Narrator
    from catena.lab.story import show, tell

    workspace, lab = _open(folder, cache, interval)
    with lab.claimed():
        lab.down()
        workspace.clear()
        narrator = Narrator(Console(stderr=as_json, highlight=False))
        summary = tell(workspace, narrator)
    output.emit(summary, lambda told: show(told, narrator), as_json=as_json)


@noun.command(
    exits=(ExitCode.UNTRUSTED,),
    examples=("catena lab predict", "catena lab predict on-uki on-shim -o json"),
)
@click.argument("cases", nargs=-1)
@workspace_options
@output.output_option
def predict(
    folder: Path, cache: Path, interval: int, *, cases: tuple[str, ...], as_json: bool
) -> None:
    """Boot machines that differ and compare every PCR with its prediction, in every bank.

    CASES are names of boots; all of them if none is given. Ends with 0 only if every PCR of
    every boot is what was predicted before it.
    """
    from catena.cli.lab_predictions import render
    from catena.lab.predictions import compare_all

    workspace, lab = _open(folder, cache, interval)
    with lab.claimed():
        room = workspace.folder / "predictions"
        room.mkdir(exist_ok=True)
        chosen = _chosen_cases(cases)
        results = tuple(compare_all(room, workspace.cache, _progress, chosen))
    output.emit(results, render, as_json=as_json)
    if not all(one.agrees for one in results):
        raise SystemExit(ExitCode.UNTRUSTED)


def _chosen_cases(names: tuple[str, ...]) -> Sequence[Case]:
    """The cases of these names, or all."""
    from catena.lab.predictions import CASES

    unknown = set(names) - {one.name for one in CASES}
    if unknown:
        raise UsageError(
            "there is no such boot",
            expected=", ".join(one.name for one in CASES),
            got=ascii(min(unknown)[:80]),
        )
    return [one for one in CASES if not names or one.name in names]


def _progress(what: str) -> None:
    click.echo(f"… {what}", err=True)


@noun.command(
    exits=(ExitCode.UNTRUSTED,),
    examples=("catena lab up", "catena lab up --yes", "catena lab up --mode open --interval 5"),
)
@workspace_options
@click.option(
    "--mode",
    type=click.Choice(["approve", "open"]),
    help="How machines get in, decided when the lab is made: `approve` (default) asks a person, "
    "`open` trusts every TPM with a known vendor.",
)
@click.option(
    "--yes", is_flag=True, help="Capture the firmware and approve the machine without asking."
)
@output.output_option
def up(
    folder: Path, cache: Path, interval: int, mode: str | None, *, yes: bool, as_json: bool
) -> None:
    """Make what is missing, start the trust service and boot the first machine.

    Returns when the machine has enrolled; with --yes, when it is trusted. Both run on until
    `catena lab down`. Anything that fails on the way is taken down again.
    """
    from rich.console import Console

    from catena.lab import story
    from catena.lab.narration import Narrator
    from catena.lab.preparation import prepare
    from catena.lab.workspace import NODE

    workspace, lab = _open(folder, cache, interval)
    narrator = Narrator(Console(stderr=as_json, highlight=False))
    with lab.claimed():
        lab.refuse_running()
        prepare(workspace, lab.operator, narrator, mode=mode)
        story.serve(lab, narrator)
        node = story.bring_up(lab, narrator, yes=yes)
        lab.keep()
    running = _running(workspace, lab, NODE, node)
    output.emit(running, _render_running, as_json=as_json)


@noun.command(
    exits=(ExitCode.NOT_FOUND,),
    examples=("catena lab boot node-2",),
)
@click.argument("machine")
@workspace_options
@output.output_option
def boot(machine: str, folder: Path, cache: Path, interval: int, *, as_json: bool) -> None:
    """Boot one more MACHINE of this lab from the release, with a TPM of its own.

    The lab must be up. MACHINE is the name of its folder, not the node's name.
    """
    from catena.lab.story import BOOT_SECONDS
    from catena.lab.workspace import AGENT_STARTED

    workspace, lab = _open(folder, cache, interval)
    lab.require_up()
    with lab.claimed():
        lab.start_machine(machine)
        lab.wait_for_console(
            machine,
            lambda text: AGENT_STARTED in text,
            seconds=BOOT_SECONDS,
            what="agent on the console",
        )
        lab.keep()
    output.emit(_running(workspace, lab, machine, None), _render_running, as_json=as_json)


@noun.command(
    exits=(ExitCode.UNTRUSTED, ExitCode.NOT_FOUND),
    examples=("catena lab attack all", "catena lab attack flipped-bit -o json"),
)
@click.argument("name")
@workspace_options
@output.output_option
def attack(name: str, folder: Path, cache: Path, interval: int, *, as_json: bool) -> None:
    """Run the attack NAME, or `all`, against a lab that is up and whose machine has joined.

    Attacks with containers are on the machine as it runs, or boot it first; then it is switched
    off and stays off. Ends with 10 if an attack got through.
    """
    from rich.console import Console

    from catena.lab import attacks
    from catena.lab.narration import Narrator
    from catena.lab.story import attack_all

    _, lab = _open(folder, cache, interval)
    gallery = attacks.named(name)
    lab.require_up()
    with lab.claimed():
        told = attack_all(lab, Narrator(Console(stderr=True, highlight=False)), gallery)

    def render(_: object) -> None:
        rows = [(one.attack, one.expected, one.stopped_by) for one in told]
        output.table(("attack", "expected", "stopped by"), rows)

    output.emit(told, render, as_json=as_json)


@noun.command(examples=("catena lab down",))
@workspace_options
@output.output_option
def down(folder: Path, cache: Path, interval: int, *, as_json: bool) -> None:
    """End everything that runs in the lab; its folder stays. Ends with 0 if nothing runs."""
    _, lab = _open(folder, cache, interval)
    stopped = Stopped(stopped=lab.down())

    def render(_: Stopped) -> None:
        click.echo(f"stopped: {', '.join(stopped.stopped) or 'nothing was running'}")

    output.emit(stopped, render, as_json=as_json)


def _open(folder: Path, cache: Path, interval: int) -> tuple[Workspace, Lab]:
    from catena.lab.operator import Operator
    from catena.lab.running import Lab
    from catena.lab.tree import Cache
    from catena.lab.workspace import Workspace

    workspace = Workspace(folder, Cache(cache.absolute()), interval)
    return workspace, Lab(workspace, Operator(workspace.profile.absolute()))


def _running(workspace: Workspace, lab: Lab, machine: str, node: dict[str, Any] | None) -> Running:
    return Running(
        folder=str(workspace.folder),
        server=f"https://127.0.0.1:{lab.server_port()}",
        machine=machine,
        node=node["id"] if node else None,
        state=node["state"] if node else None,
        console=str(workspace.machine_folder(machine) / "console.log"),
    )


def _render_running(running: Running) -> None:
    click.echo(f"server   {running.server}")
    click.echo(f"machine  {running.machine} (console: {running.console})")
    if running.node is None:
        return
    node = running.node[:16]
    click.echo(f"node     {node} is {running.state}")
    if running.state == "pending":
        click.echo(f"next     catena node explain {node}")
        click.echo(f"         catena reference capture {node} --name lab-firmware")
        click.echo(f"         catena node approve {node} --name node-1 --role worker")
