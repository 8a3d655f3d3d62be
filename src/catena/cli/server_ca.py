"""``catena server rotate-ca`` and ``server authorities``: the cluster CA and its successor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catena.cli import output
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.server.carotation import AuthorityView
    from catena.server.folder import OpenServer

_FOLDER = click.Path(path_type=Path, file_okay=False)
_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED, ExitCode.LOG_INCONSISTENT)


@click.command(
    cls=output.Verb,
    name="rotate-ca",
    exits=_EXITS,
    examples=(
        "catena server rotate-ca /var/lib/catena",
        "catena server rotate-ca /var/lib/catena --switch-after 14d --drop-after 30d",
    ),
)
@click.argument("folder", type=_FOLDER)
@click.option(
    "--switch-after",
    default="7d",
    show_default=True,
    help="When the new CA begins to issue: 30m, 8h, 7d.",
)
@click.option(
    "--drop-after",
    default="7d",
    show_default=True,
    help="How long the old CA is believed after that.",
)
@click.option(
    "--key",
    metavar="FILE|pkcs11:…",
    help="A P-256 key that is there already. [default: a new file in FOLDER]",
)
@output.output_option
def rotate_ca(
    *, folder: Path, switch_after: str, drop_after: str, key: str | None, as_json: bool
) -> None:
    """Give the cluster a new CA, with an overlap in which both are believed.

    Nodes learn the new CA with their next attestation. A server whose log is a folder has to be stopped for this and
    started again; running replicas on a database notice by themselves, but need the new key: copy the file, or use a token.
    """
    from catena.cli.token import duration
    from catena.server.carotation import Plan, rotate

    plan = Plan(
        switch_after=timedelta(seconds=duration(switch_after)),
        drop_after=timedelta(seconds=duration(drop_after)),
        key=key,
    )
    with _opened(folder) as server:
        found = rotate(server, plan, _now)
    output.emit(found, _render, as_json=as_json)


@click.command(
    cls=output.Verb,
    exits=_EXITS,
    examples=("catena server authorities /var/lib/catena",),
)
@click.argument("folder", type=_FOLDER)
@output.output_option
def authorities(*, folder: Path, as_json: bool) -> None:
    """List the cluster's CAs: who issues, who is believed until when, and where each key is."""
    from catena.server.carotation import authorities as listed

    with _opened(folder) as server:
        found = listed(server, _now)
    output.emit(found, _render, as_json=as_json)


@contextmanager
def _opened(folder: Path) -> Iterator[OpenServer]:
    import os

    from catena.server.folder import open_server

    server = open_server(folder, now=_now, random=os.urandom)
    try:
        yield server
    finally:
        server.close()


def _now() -> datetime:
    return datetime.now(UTC)


def _render(found: tuple[AuthorityView, ...]) -> None:
    output.table(
        ("key", "state", "issues from", "believed until", "private key"),
        (
            (one.sha256[:16], one.state, one.issues_from, one.trusted_until or "", one.key)
            for one in found
        ),
    )
