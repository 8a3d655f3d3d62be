"""``catena audit report``: what a log proves about nodes, in a file that verifies elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from catena.cli import output
from catena.cli.audit_log import LogSource, key_options, log_source
from catena.cli.audit_replay import evidence_of, evidence_option
from catena.cli.audit_search import INSTANT
from catena.cli.connection import printable
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.audit.report import VerifiedReport
    from catena.keys.signer import PublicKey


class ReportSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified report holds; ``replayed`` are verdicts that its evidence led to once more."""

    origin: str
    size: int
    root: str
    scope: str
    at: datetime
    made_at: datetime
    signed_by: str
    nodes: int
    entries: int
    contents: int
    missing: int
    replayed: int


@click.command(
    cls=output.Verb,
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED, ExitCode.LOG_INCONSISTENT),
    examples=(
        "catena audit report web-1 --at 2026-03-01 --log ./log --key log.pub --sign auditor.key --out web-1.report",
        "catena audit report --fleet --at 2026-03-01 --sign auditor.key --out fleet.report --html fleet.html",
    ),
)
@click.argument("node", required=False)
@click.option("--fleet", is_flag=True, help="About every node.")
@click.option("--at", required=True, type=INSTANT, help="The time whose state is reported.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The report to write.")
@click.option("--html", type=click.Path(path_type=Path), help="A page for people to write, too.")
@click.option(
    "--sign",
    "sign_key",
    required=True,
    type=click.Path(path_type=Path),
    help="Private key of whoever makes the report.",
)
@log_source
@key_options
@evidence_option
@output.output_option
def report(
    *,
    node: str | None,
    fleet: bool,
    at: datetime,
    out: Path,
    html: Path | None,
    sign_key: Path,
    source: LogSource,
    key: PublicKey,
    evidence: Path | None,
    origin: str | None,
    as_json: bool,
) -> None:
    """Write what the log proves about NODE, or about the --fleet, at a time: entries, proofs, evidence.

    `catena audit verify FILE` checks it anywhere, with the log's public key alone. What was written is
    verified before it is shown. Existing files are not overwritten.
    """
    from catena.audit.report import verify_report, write_report
    from catena.audit.reporting import gather
    from catena.audit.reportpage import render_page
    from catena.keys.signer import load_signer, write_new

    if fleet == (node is not None):
        raise click.UsageError("Give NODE or --fleet.")
    store = evidence_of(source, evidence)
    with source.opened() as log:
        body = gather(log, key, store, node=node, at=at, origin=origin)
    content = write_report(body, load_signer(sign_key), datetime.now(UTC))
    verified = verify_report(content, key, origin=origin)
    summary = _summary(verified)
    write_new(out, content, mode=0o640)
    if html is not None:
        write_new(html, render_page(verified).encode(), mode=0o640)
    output.emit(summary, _render, as_json=as_json)


signer_option = click.option(
    "--signer",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Public key of whoever has to have made a report.",
)


def is_report(file: Path) -> bool:
    """Whether a file is meant to be a report: it begins with an envelope."""
    if not file.is_file():
        return False
    with file.open("rb") as source:
        return source.read(1) == b"{"


def verify_report_file(
    file: Path, key: PublicKey, *, origin: str | None, as_json: bool, signer: Path | None = None
) -> None:
    """``catena audit verify FILE`` for a report."""
    from catena.audit.report import MAX_REPORT, verify_report
    from catena.keys.signer import load_public_key

    with file.open("rb") as source:
        content = source.read(MAX_REPORT + 1)
    maker = None if signer is None else load_public_key(signer)
    verified = verify_report(content, key, signer=maker, origin=origin)
    output.emit(_summary(verified), _render, as_json=as_json)


def _summary(verified: VerifiedReport) -> ReportSummary:
    from catena.service.replay import replay_report

    return ReportSummary(
        origin=verified.origin,
        size=verified.size,
        root=verified.root,
        scope=verified.scope,
        at=verified.at,
        made_at=verified.made_at,
        signed_by=verified.signed_by,
        nodes=len(verified.nodes),
        entries=len(verified.entries),
        contents=len(verified.contents),
        missing=len(verified.missing),
        replayed=len(replay_report(verified)),
    )


def _render(found: ReportSummary) -> None:
    click.echo(f"log       {printable(found.origin)}, {found.size} entries, root {found.root}")
    click.echo(f"about     {found.scope} at {found.at:%Y-%m-%d %H:%M:%S}Z: {found.nodes} nodes")
    click.echo(f"made      {found.made_at:%Y-%m-%d %H:%M:%S}Z, signed with key {found.signed_by}")
    click.echo(f"entries   {found.entries}, each with its inclusion proof")
    click.echo(f"evidence  {found.contents} contents, {found.missing} missing")
    click.echo(f"verdicts  {found.replayed} came out the same from their evidence")
    click.echo(
        "verified: every entry is in the signed log, every content has the digest it is named by"
    )
