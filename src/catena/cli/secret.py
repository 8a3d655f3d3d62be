"""``catena secret``: keep secrets for machines that prove themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from catena.cli import output
from catena.cli.connection import Connection, connection_options
from catena.errors import ExitCode, NotFound, UsageError
from catena.service.views import (
    MAX_SECRET,
    RekeyRequest,
    RekeyView,
    Removed,
    SecretDetail,
    SecretHolder,
    SecretReading,
    SecretRequest,
    SecretRotation,
    SecretValue,
    SecretView,
)

_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED)


class NoSecretFile(NotFound):
    """A file with a secret that cannot be read."""

    code = "no-secret-file"
    remedy = "Check the path given with --from-file."


class SecretOnTerminal(UsageError):
    """A value that would be shown on a terminal, where others may read along."""

    code = "secret-on-terminal"
    remedy = "Redirect standard output into a file or a program, or say --show."


class BadSecretSize(UsageError):
    """An empty or too large secret."""

    code = "bad-secret-size"
    remedy = "Store a key as the secret, and the data elsewhere, encrypted with it."


@click.group(cls=output.Noun, name="secret")
def noun() -> None:
    """Keep secrets for machines that prove themselves. Only `get` shows a value."""


@noun.command(
    exits=_EXITS,
    examples=(
        "catena secret put db-password --role web --from-file ./password",
        "catena secret put disk-key --label rack=7 --from-file ./key",
        'printf %s "$PASSWORD" | catena secret put db-password --role web --role db',
    ),
)
@click.argument("name")
@click.option("--role", "roles", multiple=True, help="Who receives it; repeatable.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only nodes with this label receive it; repeatable, all must match.",
)
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
    labels: tuple[str, ...],
    from_file: Path | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Store a new version of NAME, byte for byte as it is read."""
    request = SecretRequest(roles=roles, labels=labels, value=_read(from_file))
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


@noun.command(exits=_EXITS, examples=("catena secret show db-password",))
@click.argument("name")
@connection_options
@output.output_option
def show(
    *,
    name: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Show NAME's versions, and which node holds which; never a value."""
    with connection.open() as client:
        detail = client.secret(name)
    output.emit(detail, _render_detail, as_json=as_json)


@noun.command(
    exits=_EXITS,
    examples=(
        "catena secret get db-password > password",
        "catena secret get db-password --version 3 -o json > db-password.json",
    ),
)
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="Which version. [default: the newest]")
@click.option("--show", is_flag=True, help="Write the value even if a terminal shows it.")
@connection_options
@output.output_option
def get(
    *,
    name: str,
    version: int | None,
    show: bool,
    connection: Connection,
    as_json: bool,
) -> None:
    """Write NAME's value to standard output, byte for byte. The log says who read it.

    Nothing is asked of the server while standard output is a terminal, unless --show is given.
    """
    if sys.stdout.isatty() and not show:
        raise SecretOnTerminal("standard output is a terminal")
    with connection.open() as client:
        value = client.read_secret(name, SecretReading(version=version))
    output.emit(value, _write_value, as_json=as_json)


@noun.command(
    exits=_EXITS,
    examples=("catena secret rekey 3f1c9a6f2d40be77",),
)
@click.argument("kek", metavar="ID")
@connection_options
@output.output_option
def rekey(
    *,
    kek: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Encrypt all stored secrets under the key ID, which `catena server rotate-kek` made.

    Servers go on serving. Each of them must have the file of the new key before. If the command is
    interrupted, give it again: it goes on where it stopped.
    """
    rekeyed, request = 0, RekeyRequest(kek=kek)
    with connection.open() as client:
        while True:
            view = client.rekey(request)
            rekeyed += view.rekeyed
            if not view.remaining:
                break
    view = msgspec.structs.replace(view, rekeyed=rekeyed)
    output.emit(view, _render_rekeyed, as_json=as_json)


@noun.command(exits=_EXITS, examples=("catena secret rotation",))
@connection_options
@output.output_option
def rotation(
    *,
    connection: Connection,
    as_json: bool,
) -> None:
    """List secrets that a node holds which was revoked. `put` of a new version takes one off the list."""
    with connection.open() as client:
        secrets = client.rotation()
    output.emit(secrets, _render_rotation, as_json=as_json)


@noun.command(
    exits=_EXITS,
    examples=("catena secret rm db-password", "catena secret rm db-password --version 1"),
)
@click.argument("name")
@click.option(
    "--version", type=click.IntRange(min=1), help="Only this version, which is not the newest."
)
@connection_options
@output.output_option
def rm(
    *,
    name: str,
    version: int | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Wipe every version of NAME. Nodes that received it may still know it."""
    with connection.open() as client:
        removed = client.remove_secret(name, version)
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
        ("name", "version", "roles", "labels", "stored"),
        (
            (
                secret.name,
                str(secret.version),
                ", ".join(secret.roles) or "any",
                ", ".join(secret.labels) or "any",
                secret.created_at,
            )
            for secret in secrets
        ),
    )


def _render_detail(detail: SecretDetail) -> None:
    output.table(
        ("version", "roles", "labels", "stored", "held by"),
        (
            (
                str(one.version),
                ", ".join(one.roles) or "any",
                ", ".join(one.labels) or "any",
                one.created_at,
                ", ".join(map(_holder, one.held_by)) or "nobody",
            )
            for one in detail.versions
        ),
    )


def _holder(holder: SecretHolder) -> str:
    name = holder.node_name or holder.node[:12]
    return f"{name} (revoked {holder.revoked_at})" if holder.revoked_at else name


def _write_value(value: SecretValue) -> None:
    sys.stdout.buffer.write(value.value)


def _render_rekeyed(view: RekeyView) -> None:
    click.echo(f"all secrets are under {view.kek}; {view.rekeyed} were moved")
    for kek in view.ended:
        click.echo(f"nothing is under {kek} any more: delete its file in every server's folder")


def _render_rotation(secrets: tuple[SecretRotation, ...]) -> None:
    if not secrets:
        click.echo("no secret needs to be rotated")
        return
    output.table(
        ("name", "version", "held by", "since", "revoked"),
        (
            (
                one.name,
                str(one.version),
                one.node_name or one.node[:12],
                one.released_at,
                one.since,
            )
            for one in secrets
        ),
    )


def _render_removed(removed: Removed) -> None:
    which = "" if removed.version is None else f" version {removed.version}"
    click.echo(f"removed {removed.name}{which}")
    if removed.held_by:
        click.echo(f"rotate it: these nodes have received it: {', '.join(removed.held_by)}")
