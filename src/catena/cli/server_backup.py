"""``catena server backup`` and ``restore``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catena.cli import output
from catena.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from catena.server.backup import Backup
    from catena.server.restore import Restored

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED, ExitCode.LOG_INCONSISTENT)
_SHOWN_EVERY = 4 << 20


class KeysWithoutPassphrase(UsageError):
    """Keys are never written in clear."""

    code = "keys-without-passphrase"
    remedy = "Give --passphrase-file with --with-keys."


@click.command(
    cls=output.Verb,
    exits=_EXITS,
    examples=(
        "catena server backup catena-2026-03-01.backup --folder /var/lib/catena/server",
        "catena server backup night.backup --folder ./server --with-keys --passphrase-file pass",
    ),
)
@click.argument("file", type=_FILE)
@click.option("--folder", default=".", type=_FOLDER, help="The server's folder.  [default: here]")
@click.option(
    "--with-keys", is_flag=True, help="Include the folder's own keys, under the passphrase."
)
@click.option("--passphrase-file", type=_FILE, help="Seals the keys; its first line counts.")
@output.output_option
def backup(
    *, file: Path, folder: Path, with_keys: bool, passphrase_file: Path | None, as_json: bool
) -> None:
    """Copy a server's state into FILE while it runs: database, log, evidence, settings.

    The copy is consistent: its log contains what its database remembers. FILE has mode 0600 and is never
    written over. Without --with-keys it holds no private key; the secrets in it stay encrypted
    under storage.key, which is then needed to use them.
    """
    import os
    from datetime import UTC, datetime

    from catena.server import config as settings
    from catena.server.backup import Asked, back_up
    from catena.server.folder import read_passphrase
    from catena.server.signers import open_signer

    passphrase = read_passphrase(passphrase_file) if with_keys and passphrase_file else None
    if with_keys and not passphrase:
        raise KeysWithoutPassphrase("keys are not backed up in clear")
    config = settings.load(folder)
    opens = read_passphrase(folder / config.passphrase_file) if config.passphrase_file else None
    with _progress(as_json=as_json) as progress:
        made = back_up(
            Asked(
                folder=folder,
                log_key=open_signer(folder, config.log_key, opens).public_key,
                now=lambda: datetime.now(UTC),
                random=os.urandom,
                passphrase=passphrase,
                progress=progress,
            ),
            file,
        )
    output.emit(made, _render_backup, as_json=as_json)


@click.command(
    cls=output.Verb,
    exits=_EXITS,
    examples=(
        "catena server restore night.backup /var/lib/catena/server --key log.pub",
        "catena server restore night.backup ./server --key log.pub --remembered checkpoint",
    ),
)
@click.argument("file", type=_FILE)
@click.argument("folder", type=_FOLDER)
@click.option("--key", required=True, type=_FILE, help="The log's public key, log.pub.")
@click.option(
    "--remembered",
    type=_FILE,
    help="A checkpoint of this log that was kept elsewhere: an older backup is refused.",
)
@click.option(
    "--accept-rewind",
    is_flag=True,
    help="Restore although the log goes back. Who saw what is lost can prove a fork, and witnesses "
    "never cosign this log again: begin a new one with another `log_origin`.",
)
@click.option("--passphrase-file", type=_FILE, help="Opens the backup's keys.")
@output.output_option
def restore(
    *,
    file: Path,
    folder: Path,
    key: Path,
    remembered: Path | None,
    accept_rewind: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Make a server's FOLDER from a backup, verified: the whole log, database, evidence.

    FOLDER must not exist; it appears whole or not at all. Give --remembered whenever there is a
    checkpoint from elsewhere (a witness, `audit verify --remember`, checkpoint.cosigned): only
    that shows whether the backup is the newest.
    """
    from datetime import UTC, datetime

    from catena.keys.signer import load_public_key
    from catena.server import restore as restoring
    from catena.server.folder import read_passphrase

    with _progress(as_json=as_json) as progress:
        restored = restoring.restore(
            restoring.Wanted(
                file=file,
                folder=folder,
                log_key=load_public_key(key),
                now=lambda: datetime.now(UTC),
                remembered=remembered.read_bytes() if remembered else None,
                accept_rewind=accept_rewind,
                passphrase=read_passphrase(passphrase_file) if passphrase_file else None,
                progress=progress,
            )
        )
    output.emit(restored, _render_restored, as_json=as_json)


@contextlib.contextmanager
def _progress(*, as_json: bool) -> Iterator[Callable[[str, int], None]]:
    """A line on a terminal that tells what is being copied, and how much of it."""
    shown: dict[str, int] = {}
    if as_json or not sys.stderr.isatty():
        yield lambda _, __: None
        return

    def tell(what: str, size: int) -> None:
        before = shown.get(what, 0)
        shown[what] = before + size
        if before // _SHOWN_EVERY != shown[what] // _SHOWN_EVERY or not before:
            parts = (f"{name} {done / 1e6:.1f} MB" for name, done in shown.items())
            click.echo(f"\r{', '.join(parts)}", err=True, nl=False)

    yield tell
    click.echo("\r\x1b[K", err=True, nl=False)


def _render_backup(made: Backup) -> None:
    click.echo(f"file      {made.file}, {made.size} bytes")
    click.echo(f"log       {made.log_origin}, {made.log_size} entries")
    click.echo("keys that a restored server needs:")
    for key in made.keys:
        where = "in the backup" if key.included else "NOT in the backup"
        click.echo(f"  {key.name}  {key.fingerprint[:16]}  {where}")


def _render_restored(restored: Restored) -> None:
    click.echo(f"folder    {restored.folder}, as of {restored.made_at}")
    click.echo(f"log       {restored.log_origin}, {restored.log_size} entries, verified")
    if restored.rewound_from is not None:
        click.secho(
            f"WARNING: the log was rewound from {restored.rewound_from} entries. Whoever saw those can "
            "prove a fork; witnesses will not cosign it again.",
            err=True,
            bold=True,
        )
    for key in restored.missing_keys:
        click.echo(f"missing   {key.name}  {key.fingerprint[:16]}")
    click.echo(f"Then: catena server check {restored.folder}")
