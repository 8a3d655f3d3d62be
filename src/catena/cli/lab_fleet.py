"""``catena lab fleet``: many simulated nodes against a real trust service."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catena.cli import output
from catena.cli.home import home
from catena.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from catena.lab.fleet.boots import RecordedBoot
    from catena.lab.fleet.running import Given, Own
    from catena.lab.fleet.simulation import FleetReport
    from catena.lab.fleet.source import Progress

OWN = "own"
SOFTWARE, SWTPM = "software", "swtpm"
TPMS = 4
MIN_NODES = 2


@click.command(
    name="fleet",
    cls=output.Verb,
    exits=(ExitCode.UNTRUSTED, ExitCode.NOT_FOUND, ExitCode.MALFORMED),
    examples=(
        "catena lab fleet --nodes 100",
        "catena lab fleet --nodes 40 --tpm swtpm --tpms 4 --hostile 20",
        "catena lab fleet --nodes 1000 --seconds 600 --hostile 5 --logs boots/ --report fleet.html",
        "catena lab fleet --nodes 50 --logs boots/ --server https://trust.example:8440 --ca ca.crt --maker maker/",
    ),
)
@click.option("--nodes", type=click.IntRange(2, 1_000_000), default=100, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 86_400),
    default=30,
    show_default=True,
    help="How long the load lasts, after enrolment and first attestations.",
)
@click.option(
    "--hostile",
    type=click.FloatRange(0, 100),
    default=0,
    show_default=True,
    metavar="PERCENT",
    help="Share of requests that are attacks on the quote, every kind of them.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.1),
    metavar="N",
    help="Attestations a second, whatever the server does; without it, as many as go.",
)
@click.option(
    "--tpm",
    type=click.Choice((SOFTWARE, SWTPM)),
    default=SOFTWARE,
    show_default=True,
    help="Where quotes come from: software keys, or a pool of software TPMs whose keys nobody has.",
)
@click.option(
    "--tpms",
    type=click.IntRange(1, 64),
    metavar="K",
    show_default=f"{TPMS}",
    help="Processes of --tpm swtpm; each stands for several nodes.",
)
@click.option(
    "--generators",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Processes that make the load, where one core is too little for it; software keys only.",
)
@click.option("--connections", type=click.IntRange(1, 400), default=64, show_default=True)
@click.option(
    "--logs",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Recorded boots: a folder for each with eventlog.bin, and ima.bin if there is one. Without "
    "it, those that the lab recorded (.catena, or CATENA_HOME).",
)
@click.option(
    "--server",
    default=OWN,
    show_default=True,
    metavar="own|URL",
    help="`own` makes one in a folder that is deleted afterwards. Never drive one that is in use.",
)
@click.option(
    "--ca", type=click.Path(path_type=Path, exists=True), help="Who vouches for the server's TLS."
)
@click.option(
    "--maker",
    type=click.Path(path_type=Path),
    help="The authority of the software keys, made if it is missing; the server must be in mode "
    "`open`, and have its maker.pem in `ek_roots`.",
)
@click.option(
    "--database",
    default="sqlite:///catena.db",
    show_default=True,
    metavar="URL",
    help="Of the own server; with --log database: several can share it.",
)
@click.option("--log", default="log", show_default=True, metavar="PLACE", help="Of the own server.")
@click.option(
    "--servers", type=click.IntRange(1, 16), default=1, show_default=True, help="Own processes."
)
@click.option(
    "--report", type=click.Path(path_type=Path, dir_okay=False), help="An HTML page with the plot."
)
@output.output_option
def fleet(
    *,
    nodes: int,
    seconds: float,
    hostile: float,
    rate: float | None,
    tpm: str,
    tpms: int | None,
    generators: int,
    connections: int,
    logs: Path | None,
    server: str,
    ca: Path | None,
    maker: Path | None,
    database: str,
    log: str,
    servers: int,
    report: Path | None,
    as_json: bool,
) -> None:
    """Drive a trust service with a simulated fleet, over its real API, and check every answer.

    The nodes' keys are SOFTWARE keys or those of software TPMs, and the server is told so; their quotes,
    logs and requests are those of real nodes. Ends with 10 if any answer was wrong or a server error.
    """
    from catena.lab.fleet.load import Plan
    from catena.lab.fleet.page import page
    from catena.lab.fleet.running import run

    if rate is not None and hostile:
        raise UsageError("attacks have no rate of their own: give --rate or --hostile")
    if tpms is not None and tpm != SWTPM:
        raise UsageError("--tpms needs --tpm swtpm: software keys have no TPM")
    if generators > 1 and (tpm == SWTPM or nodes < MIN_NODES * generators):
        raise UsageError("--generators needs software keys, and two nodes for each of them")
    where = _given(server, ca, maker) if server != OWN else _own(database, log, servers)
    plan = Plan(seconds, hostile / 100, rate)
    with _progress() as progress:
        found = run(
            *(nodes, _boots(logs), plan, where, progress),
            connections=connections,
            generators=generators,
            tpms=0 if tpm == SOFTWARE else min(tpms or TPMS, nodes),
        )
    if report is not None:
        report.write_text(page(found), encoding="utf-8")
    output.emit(found, _render, as_json=as_json)
    if not found.holds:
        raise SystemExit(ExitCode.UNTRUSTED)


def _boots(logs: Path | None) -> tuple[RecordedBoot, ...]:
    from catena.lab.fleet.boots import recorded_boots
    from catena.lab.fleet.labboots import lab_boots

    return lab_boots(home() / "server") if logs is None else recorded_boots(logs)


def _own(database: str, log: str, servers: int) -> Own:
    from catena.lab.fleet.running import Own

    if servers > 1 and log == "log":
        raise UsageError("several servers cannot share a folder's log: give --log database:")
    return Own(database, log, servers)


def _given(url: str, ca: Path | None, maker: Path | None) -> Given:
    from catena.lab.fleet.running import Given

    if ca is None or maker is None:
        raise UsageError("another server needs --ca and --maker")
    return Given(url.rstrip("/"), ca, maker)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error, if a person looks at it."""
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    with Bar(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(phase: str, done: float, total: float) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total)
            bar.update(tasks[phase], completed=done, total=total)

        yield tell


def _render(report: FleetReport) -> None:
    from catena.lab.fleet.page import bars, figures, source

    click.echo(f"{report.nodes} nodes ({source(report)}), boots: {', '.join(report.boots)}")
    output.table(("", ""), figures(report))
    output.table(("ms", "attestations", ""), bars(report.latency))
    if report.hostile:
        rows = ((name, f"{count}") for name, count in report.hostile.items())
        output.table(("attack", "refused"), rows)
    if report.left_out:
        output.table(("attack left out", "because"), report.left_out.items())
    for what in (*report.wrong, *report.examples):
        click.secho(what, err=True, fg="red")
