"""``catena secret``: keep secrets for machines that prove themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from catena.cli import output
from catena.cli.connection import Connection, connection_options
from catena.errors import ExitCode, NotFound, UsageError
from catena.service.views import MAX_SECRET, Removed, SecretRequest, SecretView

_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED)


class NoSecretFile(NotFound):
    """A file with a secret that cannot be read."""

    code = "no-secret-file"
    remedy = "Check the path given with --from-file."


class BadSecretSize(UsageError):
    """An empty or too large secret."""

    code = "bad-secret-size"
    remedy = "Store a key as the secret, and the data elsewhere, encrypted with it."


@click.group(cls=output.Noun, name="secret")
def noun() -> None:
    """Keep secrets for machines that prove themselves. Values are never shown again."""


@noun.command(
    exits=_EXITS,
    examples=(
        "catena secret put db-password --role web --from-file ./password",
        'printf %s "$PASSWORD" | catena secret put db-password --role web --role db',
    ),
)
@click.argument("name")
@click.option("--role", "roles", multiple=True, required=True, help="Who receives it; repeatable.")
@click.option(
    "--from-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Read the value from here instead of standard input.",
)
@connection_options
@output.output_option
def put(
    *,
    name: str,
    roles: tuple[str, ...],
    from_file: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Store a new version of NAME, byte for byte as it is read."""
    request = SecretRequest(roles=roles, value=_read(from_file))
    with connection.open() as client:
        view = client.put_secret(name, request)
    output.emit(view, lambda secret: _render((secret,)), as_json=as_json)


@noun.command(name="list", exits=_EXITS, examples=("catena secret list",))
@connection_options
@output.output_option
def list_secrets(
    *,
    connection: Connection,
    as_json: bool,
) -> None:
    """List names, versions and roles; never values."""
    with connection.open() as client:
        secrets = client.secrets()
    output.emit(secrets, _render, as_json=as_json)


@noun.command(exits=_EXITS, examples=("catena secret rm db-password",))
@click.argument("name")
@connection_options
@output.output_option
def rm(
    *,
    name: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Wipe every version of NAME. Nodes that received it may still know it."""
    with connection.open() as client:
        removed = client.remove_secret(name)
    output.emit(removed, _render_removed, as_json=as_json)


def _read(path: Path | None) -> bytes:
    if path is None and sys.stdin.isatty():
        value = click.prompt("value", hide_input=True, err=True, type=str).encode()
    elif path is None:
        value = sys.stdin.buffer.read(MAX_SECRET + 1)
    else:
        try:
            with path.open("rb") as file:
                value = file.read(MAX_SECRET + 1)
        except OSError as error:
            raise NoSecretFile(f"cannot read {path}: {error.strerror}") from error
    if not 1 <= len(value) <= MAX_SECRET:
        raise BadSecretSize(
            "a secret has a wrong size", expected=f"1 to {MAX_SECRET} bytes", got=f"{len(value)}"
        )
    return bytes(value)


def _render(secrets: tuple[SecretView, ...]) -> None:
    if not secrets:
        click.echo("no secrets are stored")
        return
    output.table(
        ("name", "version", "roles", "stored"),
        (
            (secret.name, str(secret.version), ", ".join(secret.roles), secret.created_at)
            for secret in secrets
        ),
    )


def _render_removed(removed: Removed) -> None:
    click.echo(f"removed {removed.name}")
    if removed.held_by:
        click.echo(f"rotate it: these nodes have received it: {', '.join(removed.held_by)}")
