"""``catena server``: make the trust service's folder, and run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from catena.cli import output
from catena.cli.server_backup import backup, restore
from catena.cli.server_ca import authorities, rotate_ca
from catena.cli.server_check import check
from catena.cli.server_migrate import migrate
from catena.cli.server_rotate_kek import rotate_kek
from catena.cli.server_rotate_log import rotate_log
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.formats.openapi import Document

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


class NewServer(msgspec.Struct, frozen=True, kw_only=True):
    """The result of ``server init``; ``admin_token`` is shown here and never again."""

    folder: str
    url: str
    profile: str
    trust_domain: str
    mode: str
    admin_token: str


@click.group(cls=output.Noun, name="server")
def noun() -> None:
    """Run the trust service."""


noun.add_command(rotate_kek)
noun.add_command(rotate_log)
noun.add_command(backup)
noun.add_command(restore)
noun.add_command(check)
noun.add_command(migrate)


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED),
    examples=(
        "catena server init /var/lib/catena --keys ./keys --name trust.example.org",
        "catena server init ./lab --keys ./keys --ek-roots software=swtpm-ca.pem",
    ),
)
@click.argument("folder", type=_FOLDER)
@click.option(
    "--keys",
    "key_folder",
    required=True,
    type=_FOLDER,
    help="The enterprise's key folder (`catena keys init`); it stays where it is.",
)
@click.option(
    "--passphrase-file", type=_FILE, help="Opens the CA's and the log's key, also at each start."
)
@click.option(
    "--name",
    "names",
    multiple=True,
    help="DNS name or address that nodes call; repeatable. [default: localhost and --listen]",
)
@click.option("--listen", default="127.0.0.1:8440", show_default=True, metavar="HOST:PORT")
@click.option("--trust-domain", default="catena.local", show_default=True, help="For SPIFFE IDs.")
@click.option(
    "--mode",
    type=click.Choice(["approve", "open"]),
    default="approve",
    show_default=True,
    help="`approve`: new machines wait for a person. `open` admits every TPM that a root vouches "
    "for, without asking: for labs only.",
)
@click.option(
    "--ek-roots",
    multiple=True,
    metavar="[KIND=]PEM",
    help="Certificates that vouch for TPMs; KIND is vendor, enterprise (default) or software.",
)
@click.option(
    "--interval",
    type=click.IntRange(1, 86_400),
    default=30,
    show_default=True,
    help="Seconds between two attestations of a node.",
)
@click.option(
    "--database",
    default="sqlite:///catena.db",
    show_default=True,
    metavar="URL",
    help="Where the server's state lies. Give no password here: name a `passfile` in the URL.",
)
@click.option(
    "--log",
    default="log",
    show_default=True,
    metavar="PLACE",
    help="Where the audit log lies: a folder; `database:`; or s3+https://HOST/BUCKET/PREFIX.",
)
@click.option(
    "--log-s3-credentials",
    type=_FILE,
    help="Access key and secret key, a line each, in a file of mode 0600; read at each start.",
)
@output.output_option
def init(
    *,
    folder: Path,
    key_folder: Path,
    passphrase_file: Path | None,
    names: tuple[str, ...],
    listen: str,
    trust_domain: str,
    mode: str,
    ek_roots: tuple[str, ...],
    interval: int,
    database: str,
    log: str,
    log_s3_credentials: Path | None,
    as_json: bool,
) -> None:
    """Make the server's FOLDER: settings, database, transparency log, TLS identity, keys.

    Prints the first admin token. Only its hash is kept: save it now, in a file of mode 0600.
    """
    import os
    from datetime import UTC, datetime

    from catena.keys.hierarchy import open_folder
    from catena.server import founding
    from catena.server.config import Config
    from catena.server.folder import read_passphrase
    from catena.server.profile import PROFILE_FILE, load_profile
    from catena.service.setting import Mode

    path = key_folder.resolve()
    config = Config(
        listen=listen,
        names=names or _default_names(listen),
        trust_domain=trust_domain,
        mode=Mode(mode),
        interval=interval,
        database=database,
        log=log,
        log_origin=f"{trust_domain}/log",
        log_s3_credentials=str(log_s3_credentials.resolve()) if log_s3_credentials else None,
        ca_key=str(path / "ca.key"),
        ca_certificate=str(path / "ca.crt"),
        log_key=str(path / "log.key"),
        passphrase_file=str(passphrase_file.resolve()) if passphrase_file else None,
        release_keys=(str(path / "release.pub"),),
        ek_roots=ek_roots,
    )
    passphrase = read_passphrase(passphrase_file) if passphrase_file else None
    sources = founding.Sources(
        keys=open_folder(path, passphrase),
        config=config,
        now=lambda: datetime.now(UTC),
        random=os.urandom,
    )
    token = founding.init(folder, sources)
    result = NewServer(
        folder=str(folder),
        url=load_profile(folder / PROFILE_FILE).server,
        profile=str(folder / PROFILE_FILE),
        trust_domain=trust_domain,
        mode=mode,
        admin_token=token,
    )
    output.emit(result, _render_new, as_json=as_json)


@noun.command(
    exits=(
        ExitCode.NOT_FOUND,
        ExitCode.UNTRUSTED,
        ExitCode.POLICY,
        ExitCode.MALFORMED,
        ExitCode.LOG_INCONSISTENT,
    ),
    examples=("catena server run /var/lib/catena",),
)
@click.argument("folder", type=_FOLDER)
@click.option("--listen", metavar="HOST:PORT", help="Instead of the address in server.toml.")
def run(folder: Path, listen: str | None) -> None:
    """Run the trust service of FOLDER until SIGTERM or SIGINT.

    One JSON line per request, and one for each event of its life, goes to standard error. The first
    signal makes /readyz say no for `drain_delay` seconds; then running requests have `grace` seconds.
    """
    import os
    from datetime import UTC, datetime

    from catena.server import faultlog
    from catena.server import run as running
    from catena.server.access import to_stderr
    from catena.server.folder import open_server
    from catena.server.lifecycle import Lifecycle

    faultlog.take_over(to_stderr)
    lifecycle = Lifecycle(to_stderr)
    server = open_server(folder, now=lambda: datetime.now(UTC), random=os.urandom)
    server.tell(lifecycle)
    try:
        with running.listen(listen or server.config.listen) as door:
            running.serve(server, door, _announce)
    finally:
        server.close()
        lifecycle.stopped()


@noun.command(examples=("catena server openapi > catena.openapi.json",))
@output.output_option
def openapi(*, as_json: bool) -> None:
    """Print the description of the trust service's API (OpenAPI 3.1) as this version has it.

    It is JSON, indented unless -o json is given. A running server gives it to anybody as
    /v1/openapi.json, and as a page as /v1/docs.
    """
    from catena.server.app import OPERATIONS
    from catena.server.openapi import describe

    output.emit(describe(OPERATIONS), _render_openapi, as_json=as_json)


def _render_openapi(document: Document) -> None:
    click.echo(msgspec.json.format(document.encode(), indent=2))


noun.add_command(rotate_ca)
noun.add_command(authorities)


def _announce(url: str, mode: str) -> None:
    click.echo(f"catena trust service at {url}, mode {mode}")
    if mode == "open":
        click.secho(
            "WARNING: mode `open` admits every machine whose TPM a root vouches for. "
            "Use it in a lab only.",
            err=True,
            bold=True,
        )


def _default_names(listen: str) -> tuple[str, ...]:
    host = listen.rpartition(":")[0].strip("[]")
    wildcards = {"", "0.0.0.0", "::"}  # noqa: S104 - recognised, not bound
    return tuple(dict.fromkeys(("localhost", "127.0.0.1", *({host} - wildcards))))


def _render_new(result: NewServer) -> None:
    click.echo(f"folder        {result.folder}")
    click.echo(f"url           {result.url}")
    click.echo(f"trust domain  {result.trust_domain}")
    click.echo(f"mode          {result.mode}")
    click.echo(f"admin token   {result.admin_token}")
    click.echo()
    click.echo("The token is shown once and kept nowhere. Save it, then:")
    click.echo(f"  catena server run {result.folder}")
    click.echo(f"  catena node list --profile {result.profile} --token-file FILE")
