"""``catena audit chain``: logs that follow each other, as one history."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from catena.cli import output
from catena.cli.connection import printable
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.audit.rotation import Ends
    from catena.audit.verify import LogSummary


class ChainedLog(msgspec.Struct, frozen=True, kw_only=True):
    """One log of a chain, verified."""

    origin: str
    size: int
    root: str


@click.command(
    cls=output.Verb,
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED, ExitCode.LOG_INCONSISTENT),
    examples=(
        "catena audit chain ./log ./log-2 --key log.pub",
        "catena audit chain ./log ./log-2 ./log-3 --key log.pub --key log.pub --key log-3.pub",
    ),
)
@click.argument(
    "folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False)
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The logs' public keys in the same order, or one for all.",
)
@output.output_option
def chain(*, folders: tuple[Path, ...], keys: tuple[Path, ...], as_json: bool) -> None:
    """Verify the logs in FOLDERS, oldest first, and that each goes on where the one before ended.

    After `catena server rotate-log` that is what says that nothing lies between two logs. The newest one
    need not have ended.
    """
    from catena.audit.rotation import Ends, require_linked
    from catena.audit.verify import verify_folder
    from catena.keys.signer import load_public_key

    if len(keys) not in {1, len(folders)}:
        raise click.UsageError(f"{len(folders)} logs need one --key for all or one for each.")
    chained: list[tuple[LogSummary, Ends]] = []
    for folder, path in zip(folders, keys * len(folders) if len(keys) == 1 else keys, strict=True):
        ends = Ends(load_public_key(path))
        summary = verify_folder(folder, ends.key, visit=ends.visit)
        ends.require_whole(summary)
        if chained:
            require_linked(chained[-1], (summary, ends))
        chained.append((summary, ends))
    result = tuple(
        ChainedLog(origin=one.origin, size=one.size, root=one.root) for one, _ in chained
    )
    output.emit(result, _render, as_json=as_json)


def _render(result: tuple[ChainedLog, ...]) -> None:
    output.table(
        ("log", "entries", "root"),
        ((printable(one.origin), str(one.size), one.root) for one in result),
    )
    click.echo(f"verified: {len(result)} logs, one history")
