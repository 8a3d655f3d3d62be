"""``catena login``: become known to the trust service through an OpenID provider."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from catena.cli import output
from catena.cli.connection import Connection, connection_options, printable
from catena.errors import ExitCode, UsageError

if TYPE_CHECKING:
    import httpx


class NoIssuerCa(UsageError):
    """A file that should hold the provider's CA and does not."""

    code = "no-issuer-ca"
    remedy = "Give PEM certificates with --issuer-ca."


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True):
    """Who the server takes this person for, until when, and where the token is."""

    label: str
    role: str
    expires_at: str | None
    token_file: str


@click.command(
    cls=output.Verb,
    name="login",
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED),
    examples=(
        "catena login",
        "catena login --no-browser --token-file ~/.catena-token",
    ),
)
@click.option("--no-browser", is_flag=True, help="Only print the address to open.")
@click.option(
    "--issuer-ca",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PEM certificates that the provider is trusted by. [default: the system's]",
)
@connection_options
@output.output_option
def noun(
    *, no_browser: bool, issuer_ca: Path | None, connection: Connection, as_json: bool
) -> None:
    """Log in with the server's OpenID provider.

    Opens the provider's page in a browser of this machine and waits for it to come back. The token
    that the server then gives is written to the token file, for its short life: all other commands find it there.
    """
    import os

    from catena.server import signing_in
    from catena.server.client import AdminClient
    from catena.server.profile import NoToken, write_token
    from catena.service.views import LoginRequest

    profile = connection.chosen()
    if profile.token_file is None:
        raise NoToken("no token file is named to write to")
    target = Path(profile.token_file)
    with AdminClient.nameless(profile) as client, _http(issuer_ca) as http:
        offer = client.login_offer()
        token = signing_in.id_token(
            http,
            issuer=offer.issuer,
            client_id=offer.client_id,
            nonce=offer.nonce,
            random=os.urandom,
            show=lambda url: _show(url, browser=not no_browser),
        )
        made = client.login(LoginRequest(id_token=token))
    write_token(target, made.token)
    result = LoggedIn(
        label=made.view.label,
        role=made.view.role,
        expires_at=made.view.expires_at,
        token_file=str(target),
    )
    output.emit(result, _render, as_json=as_json)


def _http(issuer_ca: Path | None) -> httpx.Client:
    from catena.server import issuer

    if issuer_ca is None:
        return issuer.client(None)
    try:
        return issuer.client(ssl.create_default_context(cafile=issuer_ca))
    except (OSError, ssl.SSLError) as error:
        raise NoIssuerCa(f"cannot use CA file {issuer_ca}") from error


def _show(url: str, *, browser: bool) -> None:
    """On standard error: standard output is for the result."""
    click.echo(f"Open this address to log in:\n\n  {printable(url)}\n", err=True)
    if browser:
        import webbrowser

        webbrowser.open(url)


def _render(result: LoggedIn) -> None:
    click.echo(f"logged in as {printable(result.label)}, role {result.role}")
    click.echo(f"until        {result.expires_at}")
    click.echo(f"token in     {result.token_file}")
