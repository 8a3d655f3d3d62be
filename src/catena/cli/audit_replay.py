"""``catena audit replay``: a logged verdict, reached once more."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catena.cli import output
from catena.cli.audit_log import LogSource, key_options, log_source
from catena.cli.audit_search import INSTANT
from catena.cli.connection import printable
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.audit.evidence import EvidenceStore
    from catena.keys.signer import PublicKey
    from catena.service.replay import Replay

evidence_option = click.option(
    "--evidence",
    type=click.Path(path_type=Path),
    help="The folder of evidence [evidence, beside the log; a log behind a URL needs one].",
)


def evidence_of(source: LogSource, evidence: Path | None) -> EvidenceStore:
    """The store that was given, or the one beside the log."""
    from catena.audit.evidence import FOLDER, EvidenceStore

    if evidence is None and source.is_url:
        raise click.UsageError("A log behind a URL needs --evidence.")
    return EvidenceStore(evidence or source.folder.parent / FOLDER)


@click.command(
    cls=output.Verb,
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED, ExitCode.LOG_INCONSISTENT),
    examples=(
        "catena audit replay web-1 --at 2026-03-01T12:00:00Z --log ./log --key log.pub",
        "catena audit replay 3fa9 --at 2026-03-01T12:00:00Z -o json",
    ),
)
@click.argument("node")
@click.option("--at", required=True, type=INSTANT, help="The time whose verdict is asked for.")
@log_source
@key_options
@evidence_option
@output.output_option
def replay(
    *,
    node: str,
    at: datetime,
    source: LogSource,
    key: PublicKey,
    evidence: Path | None,
    origin: str | None,
    as_json: bool,
) -> None:
    """Reach the verdict about NODE that was in force at a time once more, offline.

    The log is verified, the stored evidence is appraised with the policy and references of then, and the
    outcome held against the entry. What is not repeated is the nonce's MAC: its key is the server's.
    """
    from catena.service import replay as replaying

    store = evidence_of(source, evidence)
    with source.opened() as log:
        found = replaying.find_verdict(log, key, node, at, origin=origin)
    result = replaying.replay(found, store)
    output.emit(result, _render, as_json=as_json)


def _render(found: Replay) -> None:
    rows = (
        ("node", found.name or found.node),
        ("verdict", f"{found.verdict}, at {found.at:%Y-%m-%d %H:%M:%S}Z"),
        ("release", found.release or "-"),
        ("entry", f"{found.entry} of {found.log_size}"),
        ("evidence", found.evidence_sha256),
        ("policy", found.policy),
        *(("reference", one) for one in found.references),
    )
    for label, value in rows:
        click.echo(f"{label:<10} {printable(value)}")
    for reason in found.reasons:
        click.echo(f"{'reason':<10} {printable(reason.message)} [{reason.code}]")
    if not found.same_quirks:
        click.echo("note       the server knew other quirk rules than this catena")
    click.echo("the same verdict follows from the evidence")
