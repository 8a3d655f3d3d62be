"""``catena server migrate``: take the database's schema steps, or say which there are."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from catena.cli import output
from catena.errors import ExitCode


class SchemaStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step: the version that it leads to, and what it does."""

    version: int
    meaning: str


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """The steps, and whether they were taken."""

    steps: tuple[SchemaStep, ...]
    taken: bool


@click.command(
    cls=output.Verb,
    exits=(ExitCode.NOT_FOUND,),
    examples=("catena server migrate /var/lib/catena --dry-run",),
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--dry-run", is_flag=True, help="Only say which steps there are.")
@output.output_option
def migrate(*, folder: Path, dry_run: bool, as_json: bool) -> None:
    """Bring the database of FOLDER's server up to this version of catena.

    `catena server run` does it, too, when it starts. Servers of the version before may run meanwhile;
    started again afterwards they refuse the database. Back it up first: no step leads back.
    """
    from catena.server import config as settings
    from catena.server.folder import database_url
    from catena.store.database import Database

    url = database_url(folder, settings.load(folder).database)
    steps = tuple(
        SchemaStep(version=step.version, meaning=step.meaning) for step in Database.pending(url)
    )
    if not dry_run:
        Database.open(url).close()
    output.emit(Migration(steps=steps, taken=not dry_run), _render, as_json=as_json)


def _render(migration: Migration) -> None:
    if not migration.steps:
        click.echo("The database is of this version.")
        return
    rows = ((str(step.version), step.meaning) for step in migration.steps)
    output.table(("version", "would change" if not migration.taken else "changed"), rows)
