"""``catena audit people`` and ``forget``: who the pseudonyms of the log stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catena.cli import output
from catena.cli.connection import Connection, connection_options, printable
from catena.errors import ExitCode, NotFound

if TYPE_CHECKING:
    from catena.audit.people import Person
    from catena.service.views import Forgotten

_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED)


class NoPeopleFile(NotFound):
    """A list of people that cannot be read."""

    code = "no-people-file"
    remedy = "Make it with `catena audit people -o json`."


@click.command(
    cls=output.Verb,
    exits=_EXITS,
    examples=(
        "catena audit people",
        "catena audit people -o json > people.json",
        "catena audit tail --people people.json --match actor=alice",
    ),
)
@connection_options
@output.output_option
def people(*, connection: Connection, as_json: bool) -> None:
    """List who the pseudonyms of the log stand for.

    The log has salted digests instead of people's names; the server keeps names and salts. Asking
    is recorded in the log.
    """
    with connection.open() as client:
        found = client.people()
    output.emit(found, _render, as_json=as_json)


@click.command(cls=output.Verb, exits=_EXITS, examples=(f"catena audit forget person:{'3f' * 32}",))
@click.argument("pseudonym")
@connection_options
@output.output_option
def forget(*, pseudonym: str, connection: Connection, as_json: bool) -> None:
    """Delete the name and the salt behind PSEUDONYM: nobody can tell any more who it was.

    The log keeps its entries and verifies as before. Copies that you made of the list are yours to
    delete. Refused while the person has a token.
    """
    with connection.open() as client:
        gone = client.forget(pseudonym)
    output.emit(gone, _render_forgotten, as_json=as_json)


def people_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--people FILE``, which becomes ``names``: names by pseudonym."""
    return click.option(
        "--people",
        "names",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=_names,
        help="Show names instead of pseudonyms: what `catena audit people -o json` printed.",
    )(command)


def _names(_: click.Context, __: click.Parameter, path: Path | None) -> Mapping[str, str]:
    from catena.audit.people import MAX_PEOPLE_FILE, open_people

    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PEOPLE_FILE)
    except OSError as error:
        raise NoPeopleFile(f"cannot read the list of people: {error.strerror}") from error
    return open_people(content)


def _render(found: tuple[Person, ...]) -> None:
    output.table(("name", "pseudonym"), ((printable(one.name), one.pseudonym) for one in found))


def _render_forgotten(gone: Forgotten) -> None:
    click.echo(f"{gone.pseudonym} is forgotten")
