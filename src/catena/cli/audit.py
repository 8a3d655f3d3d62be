"""``catena audit``: read and verify the log of every decision."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
import msgspec

from catena.audit.checkpoint import require_log_key
from catena.audit.entries import NodeEntry
from catena.audit.verify import LogSummary, VerifiedEntry, verify_folder
from catena.cli import output
from catena.cli.audit_witness import (
    CosignedView,
    read_cosigned,
    render_cosigned,
    require_cosigned,
    witness_noun,
    witness_options,
)
from catena.cli.home import in_home
from catena.errors import ExitCode
from catena.keys.signer import load_public_key

SHOWN_NODE = 32
"""Letters of a node's name, or digits of its id while it has no name, in a table."""


class ListedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry as the listing shows it."""

    index: int
    at: datetime
    kind: str
    node: str | None
    actor: str
    summary: str


class Verification(LogSummary, frozen=True, kw_only=True):
    """The result of ``audit verify``; ``entries`` only with ``--entries``, ``cosigned`` only
    with ``--witness``.
    """

    entries: tuple[ListedEntry, ...] | msgspec.UnsetType = msgspec.UNSET
    cosigned: CosignedView | msgspec.UnsetType = msgspec.UNSET


@click.group(cls=output.Noun, name="audit")
def noun() -> None:
    """Verify the log of every decision, offline."""


noun.add_command(witness_noun)


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED, ExitCode.LOG_INCONSISTENT),
    examples=(
        "catena audit verify /var/lib/catena/log --key log.pub",
        "catena audit verify ./copy-of-log --key log.pub --entries -o json",
        "catena audit verify ./log --key log.pub --witness KEY --witness KEY --quorum 1",
    ),
)
@click.argument(
    "folder",
    type=click.Path(path_type=Path),
    required=False,
    default=lambda: in_home("server", "log"),
)
@click.option(
    "--key",
    "key_path",
    required=True,
    type=click.Path(path_type=Path),
    default=lambda: in_home("keys", "log.pub"),
    show_default=".catena/keys/log.pub, if it is there",
    help="The log's public key.",
)
@click.option("--origin", help="Refuse the log unless it has this origin.")
@click.option("--entries", "list_entries", is_flag=True, help="List every entry, too.")
@witness_options
@output.output_option
def verify(
    folder: Path | None,
    key_path: Path,
    origin: str | None,
    *,
    list_entries: bool,
    witnesses: tuple[str, ...],
    quorum: int | None,
    cosigned_path: Path | None,
    as_json: bool,
) -> None:
    """Verify the log in FOLDER (a lab's own, if left out) against its public key alone.

    Checks the checkpoint's signature, every entry's signature, every tile against the entries,
    and that no file is missing or too many; with --witness also that the log contains a
    checkpoint which enough of the witnesses have cosigned.
    """
    if folder is None:
        raise click.UsageError("Missing argument 'FOLDER': there is no lab here to verify.")
    key = require_log_key(load_public_key(key_path))
    cosigned = read_cosigned(
        folder, key, origin, witnesses=witnesses, quorum=quorum, cosigned_path=cosigned_path
    )
    listed: list[ListedEntry] = []
    summary = verify_folder(
        folder,
        key,
        origin=origin,
        visit=(lambda verified: listed.append(_listed(verified))) if list_entries else None,
    )
    result = Verification(
        **msgspec.structs.asdict(summary),
        entries=tuple(listed) if list_entries else msgspec.UNSET,
        cosigned=require_cosigned(folder, cosigned, summary) if cosigned else msgspec.UNSET,
    )
    output.emit(result, _render, as_json=as_json)


def _listed(verified: VerifiedEntry) -> ListedEntry:
    entry = verified.entry
    return ListedEntry(
        index=verified.index,
        at=entry.at,
        kind=entry.kind,
        node=entry.node_name or entry.node_id if isinstance(entry, NodeEntry) else None,
        actor=_printable(entry.actor),
        summary=_printable(entry.summary()),
    )


def _printable(text: str) -> str:
    """Escape what a terminal might obey; the log keeps the original."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _render(result: Verification) -> None:
    if result.entries:
        output.table(
            ("index", "at", "kind", "node", "summary"),
            (
                (
                    str(entry.index),
                    f"{entry.at:%Y-%m-%d %H:%M:%S}Z",
                    entry.kind,
                    (entry.node or "-")[:SHOWN_NODE],
                    entry.summary,
                )
                for entry in result.entries
            ),
        )
        click.echo()
    click.echo(f"log      {result.origin}")
    click.echo(f"entries  {result.size}")
    for kind, count in result.kinds.items():
        click.echo(f"         {count} {kind}")
    click.echo(f"root     {result.root}")
    if result.cosigned:
        render_cosigned(result.cosigned)
    if result.set_aside:
        click.echo(f"note     {result.set_aside} files of interrupted appends were set aside")
    click.echo("verified: every entry is signed, every tile leads to the signed root")
