"""``catena audit verify``: a log in a folder or behind a URL, or a proof in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from catena.audit.verify import LogSummary, VerifiedEntry, Visit
from catena.cli import output
from catena.cli.audit_listing import ListedEntry, listed, table
from catena.cli.audit_log import LogSource, key_options, log_argument
from catena.cli.audit_report import is_report, signer_option, verify_report_file
from catena.cli.audit_witness import (
    CosignedView,
    read_cosigned,
    render_cosigned,
    require_cosigned,
    witness_options,
)
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.audit.reader import LogReader
    from catena.keys.signer import PublicKey

_FILE = click.Path(path_type=Path, dir_okay=False)
_REDRAWN = 0.2


class Verification(LogSummary, frozen=True, kw_only=True):
    """The result of ``audit verify``; ``entries`` only with ``--entries``, ``cosigned`` only
    with ``--witness``, ``remembered``, the size that was known before, only with ``--remember``.
    """

    entries: tuple[ListedEntry, ...] | msgspec.UnsetType = msgspec.UNSET
    cosigned: CosignedView | msgspec.UnsetType = msgspec.UNSET
    remembered: int | msgspec.UnsetType = msgspec.UNSET


class ProofVerification(msgspec.Struct, frozen=True, kw_only=True):
    """The result for a proof: the entry that is in the log, and the tree it was proven for."""

    origin: str
    size: int
    root: str
    entry: ListedEntry


@click.command(
    cls=output.Verb,
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED, ExitCode.LOG_INCONSISTENT),
    examples=(
        "catena audit verify /var/lib/catena/log --key log.pub",
        "catena audit verify ./copy-of-log --key log.pub --entries -o json",
        "catena audit verify https://catena.example:8443/log --key log.pub --remember seen",
        "catena audit verify 41.tlog-proof --key log.pub",
        "catena audit verify web-1.report --key log.pub --signer auditor.pub",
        "catena audit verify ./log --key log.pub --witness KEY --witness KEY --quorum 1",
    ),
)
@log_argument("WHAT")
@key_options
@click.option("--entries", "list_entries", is_flag=True, help="List every entry, too.")
@click.option(
    "--remember",
    type=_FILE,
    help="File with the newest checkpoint that was verified: the log has to contain its tree.",
)
@signer_option
@witness_options
@output.output_option
def verify(
    *,
    source: LogSource,
    key: PublicKey,
    origin: str | None,
    list_entries: bool,
    remember: Path | None,
    signer: Path | None,
    witnesses: tuple[str, ...],
    quorum: int | None,
    cosigned_path: Path | None,
    as_json: bool,
) -> None:
    """Verify WHAT against the log's public key alone: a log, a proof or a report.

    A log (a folder, a URL, a lab's own if left out): the checkpoint's signature, every entry's
    signature, every tile against the entries, in a folder also that no file is missing or too
    many; with --remember that it grew from what was verified before; with --witness that it
    contains a checkpoint which enough of the witnesses have cosigned.

    A file with a proof (C2SP tlog-proof): that its entry is in the tree that the log's key signed.

    A report (`audit report`): that every entry in it is, that its evidence has the digests they name, and
    that its verdicts follow from it once more.
    """
    if not source.is_url and is_report(source.folder):
        verify_report_file(source.folder, key, origin=origin, signer=signer, as_json=as_json)
        return
    if not source.is_url and source.folder.is_file():
        output.emit(_proof(source.folder, key, origin), _render_proof, as_json=as_json)
        return
    entries: list[ListedEntry] = []
    with source.opened() as log, _progress() as seen:

        def visit(one: VerifiedEntry) -> None:
            seen(one)
            if list_entries:
                entries.append(listed(one))

        beside = None if source.is_url else source.folder.resolve().parent
        cosigned = read_cosigned(
            log,
            beside,
            key,
            origin,
            witnesses=witnesses,
            quorum=quorum,
            cosigned_path=cosigned_path,
        )
        summary, past = _verified(log, key, origin=origin, visit=visit, remembered=remember)
        view = require_cosigned(log, cosigned, summary) if cosigned else msgspec.UNSET
    result = Verification(
        **msgspec.structs.asdict(summary),
        entries=tuple(entries) if list_entries else msgspec.UNSET,
        cosigned=view,
        remembered=msgspec.UNSET if remember is None else past,
    )
    output.emit(result, _render, as_json=as_json)


def _verified(
    log: LogReader,
    key: PublicKey,
    *,
    origin: str | None,
    visit: Visit,
    remembered: Path | None,
) -> tuple[LogSummary, int]:
    """The log, verified whole; the size that was known before, 0 for none."""
    from catena.audit.follow import known
    from catena.audit.hashes import read_checkpoint
    from catena.audit.remembered import recall, remember
    from catena.audit.verify import verify_log

    past = recall(remembered, key, origin=origin) if remembered else None
    known_before = None if past is None else past.checkpoint
    expected = origin if past is None else past.checkpoint.origin
    head = known(read_checkpoint(log), key, origin=expected)
    summary = verify_log(log, head.checkpoint, key, visit=visit, remembered=known_before)
    if remembered and head != past:
        remember(remembered, head)
    return summary, known_before.size if known_before else 0


def _proof(path: Path, key: PublicKey, origin: str | None) -> ProofVerification:
    from catena.audit.receipt import verify_proof
    from catena.formats.tlogproof import MAX_PROOF

    with path.open("rb") as file:
        proven = verify_proof(file.read(MAX_PROOF + 1), key, origin=origin)
    head = proven.checkpoint
    return ProofVerification(
        origin=head.origin,
        size=head.size,
        root=head.root.hex(),
        entry=listed(VerifiedEntry(proven.index, proven.entry)),
    )


@contextmanager
def _progress() -> Iterator[Visit]:
    """Counts entries on the terminal, if there is one."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    drawn = time.monotonic()

    def seen(one: VerifiedEntry) -> None:
        nonlocal drawn
        if time.monotonic() - drawn > _REDRAWN:
            drawn = time.monotonic()
            click.echo(f"\r{one.index + 1} entries verified", nl=False, err=True)

    try:
        yield seen
    finally:
        click.echo("\r\033[K", nl=False, err=True)


def _render_proof(result: ProofVerification) -> None:
    table((result.entry,))
    click.echo()
    click.echo(f"log      {result.origin}")
    click.echo(f"entries  {result.size}")
    click.echo(f"root     {result.root}")
    click.echo(f"verified: entry {result.entry.index} is in this log")


def _render(result: Verification) -> None:
    if result.entries:
        table(result.entries)
        click.echo()
    click.echo(f"log      {result.origin}")
    click.echo(f"entries  {result.size}")
    for kind, count in result.kinds.items():
        click.echo(f"         {count} {kind}")
    click.echo(f"root     {result.root}")
    if result.remembered:
        click.echo(f"grew     from the {result.remembered} entries verified before")
    if result.cosigned:
        render_cosigned(result.cosigned)
    if result.set_aside:
        click.echo(f"note     {result.set_aside} files of interrupted appends were set aside")
    click.echo("verified: every entry is signed, every tile leads to the signed root")
