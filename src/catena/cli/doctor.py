"""``catena doctor``: what this machine lacks, and the command that provides it."""

from __future__ import annotations

from pathlib import Path

import click

from catena.cli import output
from catena.errors import ExitCode


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

    Ends with 1 if anything is missing; one command installs all packages that are.
    """
    from catena.lab import requirements

    diagnosis = requirements.examine(folder.absolute())

    def render(found: requirements.Diagnosis) -> None:
        rows = [
            ("ok" if check.ok else "MISSING", check.name, check.found, check.purpose)
            for check in found.checks
            if not (quiet and check.ok)
        ]
        if rows:
            output.table(("", "check", "found", "needed to"), rows)
        for remedy in found.remedies:
            click.echo(f"remedy: {remedy}")

    output.emit(diagnosis, render, as_json=as_json)
    return ExitCode.OK if diagnosis.ok else ExitCode.INTERNAL
