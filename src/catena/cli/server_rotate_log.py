"""``catena server rotate-log``: end the log, and go on in another one."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from catena.cli import output
from catena.cli.connection import printable
from catena.errors import ExitCode
from catena.formats.pkcs11uri import SCHEME


class RotatedLog(msgspec.Struct, frozen=True, kw_only=True):
    """The old log's last tree, and the new log."""

    ended_origin: str
    ended_size: int
    ended_root: str
    origin: str
    log: str
    log_key: str


@click.command(
    cls=output.Verb,
    name="rotate-log",
    exits=(
        ExitCode.NOT_FOUND,
        ExitCode.UNTRUSTED,
        ExitCode.MALFORMED,
        ExitCode.LOG_INCONSISTENT,
    ),
    examples=(
        "catena server rotate-log /var/lib/catena --origin catena.local/log/2 --log log-2",
        "catena server rotate-log ./server --origin catena.local/log/2 --log log-2 --log-key new.key",
    ),
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--origin", required=True, help="The new log's origin, which no other log has.")
@click.option(
    "--log",
    "place",
    required=True,
    metavar="PLACE",
    help="Where the new log lies: a folder; `database:`; or s3+https://HOST/BUCKET/PREFIX.",
)
@click.option(
    "--log-key",
    metavar="KEY",
    help="The new log's private key (Ed25519): a file, or `pkcs11:…`. [default: the old log's]",
)
@output.output_option
def rotate_log(
    *, folder: Path, origin: str, place: str, log_key: str | None, as_json: bool
) -> None:
    """End the log of FOLDER's server, which does not run, and go on in another log.

    The old log's last entry names the new one and its key; the new log's first entry names the old
    one with its last tree; `catena audit chain` verifies both. Interrupted, the same command
    finishes it, and until then no server starts with the old log. Of several servers on one
    database stop all, and run the command for each one's folder.

    Keep the old log, its key's public half and its evidence: they prove what happened before.
    Witnesses have to be told the new log's key (`catena audit witness log-key`).
    """
    import os
    from datetime import UTC, datetime

    from catena.server import config as settings
    from catena.server.rotation import Successor, rotate

    key = settings.load(folder).log_key if log_key is None else _named(log_key)
    done = rotate(
        folder,
        Successor(origin, place, key),
        now=lambda: datetime.now(UTC),
        random=os.urandom,
    )
    result = RotatedLog(
        ended_origin=done.ended.origin,
        ended_size=done.ended.size,
        ended_root=done.ended.root.hex(),
        origin=done.config.log_origin,
        log=done.config.log,
        log_key=done.config.log_key,
    )
    output.emit(result, _render, as_json=as_json)


def _named(key: str) -> str:
    """As the settings say it: a file has its whole path, a key on a token none."""
    return key if key.startswith(SCHEME) else str(Path(key).resolve())


def _render(result: RotatedLog) -> None:
    click.echo(f"{printable(result.ended_origin)} ended with {result.ended_size} entries")
    click.echo(f"root      {result.ended_root}")
    click.echo(f"goes on   {printable(result.origin)} in {printable(result.log)}")
    click.echo(f"key       {printable(result.log_key)}")
