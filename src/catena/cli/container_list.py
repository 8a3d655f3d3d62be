"""``catena container list``: what ran on this machine, and why it was allowed or refused."""

from __future__ import annotations

from pathlib import Path

import click

from catena.cli import output
from catena.cli.connection import printable
from catena.containers.record import DEFAULT_RECORD
from catena.containers.record.file import read_events
from catena.containers.record.listing import Row, State, rows
from catena.errors import ExitCode


@click.command(
    name="list",
    cls=output.Verb,
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED),
    examples=(
        "catena container list",
        "catena container list --running -o json",
        "catena container list --record /var/lib/catena/record/record-BOOT.cel",
    ),
)
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_RECORD,
    show_default=True,
    help="The record file to read; those of earlier boots lie beside it.",
)
@click.option("--running", is_flag=True, help="Only containers that have not exited.")
@click.option("--refused", is_flag=True, help="Only what was refused.")
@output.output_option
def list_containers(*, record: Path, running: bool, refused: bool, as_json: bool) -> None:
    """List what ran on this machine in this boot, and why it was allowed or refused.

    Reads the record that the gate wrote. An event that was altered is an error; whether the
    record is what the TPM holds is for the trust service to say: catena node explain.
    """
    events = read_events(record)
    found = rows(events)
    wanted = {
        *((State.RUNNING,) if running else ()),
        *((State.REFUSED,) if refused else ()),
    } or set(State)
    if events and events[0].nv_index is not None and not as_json:
        click.echo(f"tenant of NV index {events[0].nv_index:#010x}\n")
    output.emit(tuple(one for one in found if one.state in wanted), _render, as_json=as_json)


def _render(listing: tuple[Row, ...]) -> None:
    if not listing:
        click.echo("the record knows of no such container")
        return
    output.table(
        ("container", "state", "started", "image", "execs", "why"),
        (
            (
                printable(one.container[:20]),
                one.state.value,
                f"{one.started:%Y-%m-%d %H:%M:%S}",
                printable(f"{one.repository or '?'}@{one.image[:19] or '?'}"),
                str(len(one.execs)) if one.execs else "",
                printable(one.why),
            )
            for one in listing
        ),
    )
