"""``catena eventlog``: read, explain and compare the logs of measured boots."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from catena.cli import output
from catena.errors import ExitCode, FormatError
from catena.measure import logfile
from catena.measure.logfile import Replayed

MAX_FILE = 64 * 1024 * 1024

_EXITS = (ExitCode.NOT_FOUND, ExitCode.MALFORMED)


class LogTooLarge(FormatError):
    """A file that no log of a machine is as large as."""

    code = "log-too-large"
    remedy = "Give the log of one boot."


class ReplayView(msgspec.Struct, frozen=True, kw_only=True):
    """A replayed log as ``-o json`` prints it; digests are lower-case hex."""

    format: str
    banks: tuple[str, ...]
    startup_locality: int | None
    events: int
    pcrs: dict[str, dict[str, str]]
    opaque_events: int


@click.group(cls=output.Noun, name="eventlog")
def noun() -> None:
    """Read, explain and compare the logs of measured boots. FILE may be - for standard input."""


@noun.command(
    exits=_EXITS,
    examples=(
        "catena eventlog replay /sys/kernel/security/tpm0/binary_bios_measurements",
        "catena eventlog replay - -o json < log",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@output.output_option
def replay(*, file: Path, as_json: bool) -> None:
    """Say what PCRs would hold if FILE were the whole truth, in every bank.

    FILE is a firmware log, an IMA log or a canonical event log (systemd's tpm2-measure.log).
    """
    output.emit(_view(logfile.replay_all(read_log(file))), _render, as_json=as_json)


def read_log(file: Path) -> bytes:
    """The content of a log file, or of standard input. Raises ``LogTooLarge``."""
    if str(file) == "-":
        return _read(sys.stdin.buffer)
    with file.open("rb") as source:
        return _read(source)


def _read(source: BinaryIO) -> bytes:
    content = source.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise LogTooLarge("the log is too large", expected=f"at most {MAX_FILE} bytes")
    return content


def _view(replayed: Replayed) -> ReplayView:
    return ReplayView(
        format=replayed.format,
        banks=tuple(bank.value for bank in replayed.banks),
        startup_locality=replayed.startup_locality,
        events=replayed.events,
        pcrs={
            bank.value: {str(pcr): value.hex() for pcr, value in values.items()}
            for bank, values in replayed.pcrs.items()
        },
        opaque_events=replayed.opaque_events,
    )


def _render(view: ReplayView) -> None:
    locality = view.startup_locality
    click.echo(f"format            {view.format}")
    click.echo(f"events            {view.events}, {view.opaque_events} of them opaque")
    click.echo(f"startup locality  {'not told' if locality is None else locality}")
    place = "register" if view.format == "ccel" else "PCR"
    for bank, values in view.pcrs.items():
        click.echo(f"\n{bank}")
        for pcr, value in values.items():
            click.echo(f"  {place} {pcr:>2}  {value}")
