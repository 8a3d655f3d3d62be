"""``catena doctor``: what this machine lacks, and the command that provides it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from catena.cli import output
from catena.errors import ExitCode


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The whole examination; ``ok`` only if every check is."""

    ok: bool
    checks: tuple[object, ...]


@click.command(
    name="doctor",
    cls=output.Verb,
    examples=("catena doctor", "catena doctor -o json"),
)
@click.option("--quiet", is_flag=True, help="Print only what is missing.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Folder whose free space counts (default: here).",
)
@output.output_option
def noun(*, quiet: bool, folder: Path, as_json: bool) -> int:
    """Check this machine: Python, privileges, tools, firmware, disk space.

    Ends with 1 if anything is missing; each line that fails names its remedy.
    """
    from catena.lab import requirements

    found = requirements.checks(folder.absolute())
    diagnosis = Diagnosis(ok=all(check.ok for check in found), checks=found)

    def render(_: Diagnosis) -> None:
        shown = [check for check in found if not (quiet and check.ok)]
        rows = [
            ("ok" if check.ok else "MISSING", check.name, check.found, check.purpose)
            for check in shown
        ]
        if rows:
            output.table(("", "check", "found", "needed to"), rows)
        for remedy in dict.fromkeys(check.remedy for check in shown if not check.ok):
            click.echo(f"remedy: {remedy}")

    output.emit(diagnosis, render, as_json=as_json)
    return ExitCode.OK if diagnosis.ok else ExitCode.INTERNAL
