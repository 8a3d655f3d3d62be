"""``catena audit replay``: a logged verdict, reached once more."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catena.cli import output
from catena.cli.audit_search import INSTANT, key_option, required_folder
from catena.cli.connection import printable
from catena.cli.home import in_home
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.audit.evidence import EvidenceStore
    from catena.service.replay import Replay

log_option = click.option(
    "--log",
    "folder",
    type=click.Path(path_type=Path),
    default=lambda: in_home("server", "log"),
    show_default=".catena/server/log, if it is there",
    help="The log's folder.",
)
evidence_option = click.option(
    "--evidence",
    type=click.Path(path_type=Path),
    help="The folder of evidence [evidence, beside the log].",
)


def evidence_of(folder: Path, evidence: Path | None) -> EvidenceStore:
    """The store that was given, or the one beside the log."""
    from catena.audit.evidence import FOLDER, EvidenceStore

    return EvidenceStore(evidence or folder.parent / FOLDER)


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
@log_option
@key_option
@evidence_option
@click.option("--origin", help="Refuse the log unless it has this origin.")
@output.output_option
def replay(
    *,
    node: str,
    at: datetime,
    folder: Path | None,
    key_path: Path,
    evidence: Path | None,
    origin: str | None,
    as_json: bool,
) -> None:
    """Reach the verdict about NODE that was in force at a time once more, offline.

    The log is verified, the stored evidence is appraised with the policy and references of then, and the
    outcome held against the entry. What is not repeated is the nonce's MAC: its key is the server's.
    """
    from catena.audit.checkpoint import require_log_key
    from catena.keys.signer import load_public_key
    from catena.service import replay as replaying

    place = required_folder(folder)
    key = require_log_key(load_public_key(key_path))
    found = replaying.find_verdict(place, key, node, at, origin=origin)
    result = replaying.replay(found, evidence_of(place, evidence))
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
