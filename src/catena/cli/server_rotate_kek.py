"""``catena server rotate-kek``: make another key for secrets at rest."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from catena.cli import output
from catena.errors import ExitCode


class NewKek(msgspec.Struct, frozen=True, kw_only=True):
    """A storage key that is not in force yet."""

    kek: str
    file: str


@click.command(
    cls=output.Verb,
    name="rotate-kek",
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED),
    examples=(
        "catena server rotate-kek /var/lib/catena",
        "catena server rotate-kek DIR --key 'pkcs11:token=T;object=K?module-path=/usr/lib/m.so&pin-source=/etc/pin'",
    ),
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--key", "uri", metavar="URI", help="An AES-256 key on a PKCS #11 token, instead of a new one."
)
@output.output_option
def rotate_kek(*, folder: Path, uri: str | None, as_json: bool) -> None:
    """Make another key for secrets at rest in FOLDER, whose server may run.

    Copy the file into the folder of every other server of the fleet, then let `catena secret rekey` put it in
    force.
    """
    from catena.server import config
    from catena.server.storagekeys import make_storage_key, name_storage_key

    config.load(folder)
    path = make_storage_key(folder, os.urandom) if uri is None else name_storage_key(folder, uri)
    kek = path.stem.removeprefix("storage-")
    output.emit(NewKek(kek=kek, file=str(path)), _render, as_json=as_json)


def _render(new: NewKek) -> None:
    click.echo(
        f"made {new.file}: copy it to every server, then run `catena secret rekey {new.kek}`"
    )
