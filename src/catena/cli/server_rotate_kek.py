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
    exits=(ExitCode.NOT_FOUND,),
    examples=("catena server rotate-kek /var/lib/catena",),
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@output.output_option
def rotate_kek(*, folder: Path, as_json: bool) -> None:
    """Make another key for secrets at rest in FOLDER, whose server may run.

    Copy the file into the folder of every other server of the fleet, then let `catena secret rekey` put it in
    force.
    """
    from catena.server import config
    from catena.server.storagekeys import make_storage_key

    config.load(folder)
    path = make_storage_key(folder, os.urandom)
    kek = path.stem.removeprefix("storage-")
    output.emit(NewKek(kek=kek, file=str(path)), _render, as_json=as_json)


def _render(new: NewKek) -> None:
    click.echo(
        f"made {new.file}: copy it to every server, then run `catena secret rekey {new.kek}`"
    )
