"""``catena token``: who may call the trust service's admin API."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catena.cli import output
from catena.cli.connection import Connection, connection_options, printable
from catena.errors import ExitCode, UsageError
from catena.service.roles import Right, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from catena.server.folder import OpenServer
    from catena.service.views import NewToken, TokenRequest, TokenView

_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED)
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
FOLDER_ACTOR = "server"

folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work in the server's folder instead: whoever may write there needs no token. A server whose log "
    "is a folder has to be stopped first.",
)


class BadDuration(UsageError):
    """A time that a token should live and that cannot be read."""

    code = "bad-duration"
    remedy = "Give minutes, hours or days: 30m, 8h, 90d."


@click.group(cls=output.Noun, name="token")
def noun() -> None:
    """Say who may call the trust service, for how long, and for what."""


@noun.command(
    exits=_EXITS,
    examples=(
        "catena token create alice --role operator --expires 30d",
        "catena token create dashboard --role viewer --scope nodes:read",
        "catena token create rescue --role admin --folder /var/lib/catena",
    ),
)
@click.argument("label")
@click.option("--role", required=True, type=click.Choice([str(role) for role in Role]))
@click.option(
    "--scope",
    "scope",
    multiple=True,
    type=click.Choice([str(right) for right in Right if right is not Right.TOKENS_WRITE]),
    help="A right that the token is narrowed to; repeatable. [default: all of its role]",
    metavar="RIGHT",
)
@click.option(
    "--expires", default="90d", show_default=True, help="Minutes, hours or days: 30m, 8h, 90d."
)
@folder_option
@connection_options
@output.output_option
def create(
    *,
    label: str,
    role: str,
    scope: tuple[str, ...],
    expires: str,
    folder: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Make a token for LABEL, and print it: once, here, and never again."""
    from catena.service.views import TokenRequest

    request = TokenRequest(
        label=label,
        role=Role(role),
        scope=tuple(Right(one) for one in scope),
        expires_in=duration(expires),
    )
    if folder is None:
        with connection.open() as client:
            made = client.create_token(request)
    else:
        with _opened(folder) as server:
            made = server.service.tokens.create(checked(request), FOLDER_ACTOR)
    output.emit(made, _render_new, as_json=as_json)


@noun.command(name="list", exits=_EXITS, examples=("catena token list",))
@folder_option
@connection_options
@output.output_option
def list_tokens(*, folder: Path | None, connection: Connection, as_json: bool) -> None:
    """List whose tokens there are, what they may do, and when each was last used; never a token."""
    if folder is None:
        with connection.open() as client:
            tokens = client.tokens()
    else:
        from catena.service.pages import whole

        with _opened(folder) as server:
            tokens = whole(server.service.tokens.page)
    output.emit(tokens, _render, as_json=as_json)


@noun.command(
    exits=_EXITS, examples=("catena token remove alice", "catena token remove 3f2a90c1d4e5b607")
)
@click.argument("token")
@folder_option
@connection_options
@output.output_option
def remove(*, token: str, folder: Path | None, connection: Connection, as_json: bool) -> None:
    """Withdraw at once: all tokens with the label TOKEN, or the one with this id."""
    if folder is None:
        with connection.open() as client:
            gone = client.remove_token(token)
    else:
        with _opened(folder) as server:
            gone = server.service.tokens.remove(token, FOLDER_ACTOR)
    output.emit(gone, lambda them: _render(them, verb="withdrawn"), as_json=as_json)


def duration(text: str) -> int:
    """Seconds of ``30m``, ``8h`` or ``90d``. Raises ``BadDuration``."""
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if match is None or not int(match[1]):
        raise BadDuration("not a duration", got=ascii(text[:40]))
    return int(match[1]) * _UNITS[match[2]]


def checked(request: TokenRequest) -> TokenRequest:
    """The request as the server would have read it. Raises ``FormatError``."""
    import msgspec

    from catena.formats import nodeapi

    return nodeapi.decode(msgspec.json.encode(request), type(request))


@contextmanager
def _opened(folder: Path) -> Iterator[OpenServer]:
    """The server in its folder, once, closed afterwards."""
    import os
    from datetime import UTC, datetime

    from catena.server.folder import open_server

    server = open_server(folder, now=lambda: datetime.now(UTC), random=os.urandom)
    try:
        yield server
    finally:
        server.close()


def _render_new(made: NewToken) -> None:
    click.echo(f"token    {made.token}")
    click.echo(f"label    {made.view.label}")
    click.echo(f"role     {made.view.role}")
    click.echo(f"scope    {' '.join(made.view.scope) or 'all of the role'}")
    click.echo(f"expires  {made.view.expires_at}")
    click.echo()
    click.echo("It is shown once and kept nowhere. Save it in a file of mode 0600.")


def _render(tokens: tuple[TokenView, ...], verb: str = "") -> None:
    if not tokens:
        click.echo("no tokens are stored")
        return
    output.table(
        ("id", "label", "role", "scope", "expires", "last used"),
        (
            (
                one.id,
                printable(one.label),
                one.role,
                " ".join(one.scope) or "all",
                verb or ("expired" if one.expired else one.expires_at or "never"),
                one.last_used or "never",
            )
            for one in tokens
        ),
    )
