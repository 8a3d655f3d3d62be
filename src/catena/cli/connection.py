"""Options that tell an admin command which server to call, and as whom."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from catena.cli.home import in_home

if TYPE_CHECKING:
    from catena.server.client import AdminClient
    from catena.server.profile import Profile

_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """What the options say about the server."""

    profile: Path | None
    server: str | None
    ca: Path | None
    token_file: Path | None

    def open(self) -> AdminClient:
        """The client that the options ask for. Raises ``NoServerNamed`` or ``NoToken``."""
        from catena.server.client import AdminClient

        return AdminClient.connect(self.chosen())

    def chosen(self) -> Profile:
        """Which server, CA and token file the options name. Raises ``NoServerNamed``."""
        from catena.server.profile import NoServerNamed, Profile, load_profile

        if self.profile is not None:
            chosen = load_profile(self.profile)
        elif self.server is not None and self.ca is not None:
            chosen = Profile(server=self.server, ca=str(self.ca))
        else:
            raise NoServerNamed("no server is named")
        changes = {"server": self.server, "ca": self.ca, "token_file": self.token_file}
        given = {name: str(value) for name, value in changes.items() if value is not None}
        return msgspec.structs.replace(chosen, **given)


def connection_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--profile``, ``--server``, ``--ca`` and ``--token-file``, or their variables.

    The verb receives them as one ``connection``.
    """

    @functools.wraps(function)
    def verb(
        *,
        profile: Path | None,
        server_url: str | None,
        ca_file: Path | None,
        token_file: Path | None,
        **others: Any,  # noqa: ANN401 - the verb's own options, passed through
    ) -> None:
        connection = Connection(profile, server_url, ca_file, token_file)
        function(connection=connection, **others)

    options = (
        click.option(
            "--profile",
            envvar="CATENA_PROFILE",
            show_envvar=True,
            type=_FILE,
            default=lambda: in_home("server", "admin.toml"),
            show_default=".catena/server/admin.toml, if it is there",
            help="admin.toml of the server's folder: address and CA in one.",
        ),
        click.option(
            "--server",
            "server_url",
            envvar="CATENA_SERVER",
            show_envvar=True,
            metavar="URL",
            help="https://HOST:PORT of the trust service.",
        ),
        click.option(
            "--ca",
            "ca_file",
            envvar="CATENA_CA",
            show_envvar=True,
            type=_FILE,
            help="Certificate of the cluster CA; nothing else is trusted.",
        ),
        click.option(
            "--token-file",
            envvar="CATENA_TOKEN_FILE",
            show_envvar=True,
            type=_FILE,
            help="File with the admin token, mode 0600.",
        ),
    )
    decorated: Callable[..., None] = verb
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def printable(text: str) -> str:
    """Text of a machine, or of a log, with everything escaped that a terminal might obey."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
