"""``catena server check``: everything that would stop a server, with its place in server.toml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from catena.cli import output
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.server.checkup import Checkup, Finding


@click.command(
    cls=output.Verb,
    exits=(
        ExitCode.NOT_FOUND,
        ExitCode.UNTRUSTED,
        ExitCode.POLICY,
        ExitCode.MALFORMED,
        ExitCode.LOG_INCONSISTENT,
    ),
    examples=("catena server check /var/lib/catena",),
)
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
@output.output_option
@click.pass_context
def check(ctx: click.Context, *, folder: Path, as_json: bool) -> None:
    """Look for everything that would stop the server of FOLDER; change nothing.

    Settings with line and column, files and their modes, keys, certificates, database and schema, the
    log against what the database remembers, the policy in force, the address. The server may run
    meanwhile. Ends with the highest exit code of what it finds; warnings do not count.
    """
    from datetime import UTC, datetime

    from catena.server import checkup

    found = checkup.check(folder, datetime.now(UTC))
    output.emit(found, _render, as_json=as_json)
    ctx.exit(found.exit_code)


def _render(found: Checkup) -> None:
    for finding in found.findings:
        click.echo(f"{_place(finding)}: {finding.severity}: {_text(finding)} [{finding.code}]")
        click.echo(f"  remedy: {finding.remedy}")
    errors = sum(finding.severity == "error" for finding in found.findings)
    click.echo(
        f"checked {', '.join(found.checked)}: {errors} errors, "
        f"{len(found.findings) - errors} warnings"
    )


def _place(finding: Finding) -> str:
    return (
        finding.file if finding.line is None else f"{finding.file}:{finding.line}:{finding.column}"
    )


def _text(finding: Finding) -> str:
    detail = [
        f"{label} {value}"
        for label, value in (("expected", finding.expected), ("got", finding.got))
        if value is not None
    ]
    return f"{finding.message} ({', '.join(detail)})" if detail else finding.message
