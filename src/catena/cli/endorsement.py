"""``catena endorsement``: say who may vouch for a TPM."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from catena.cli import output
from catena.cli.connection import Connection, connection_options, printable
from catena.errors import ExitCode
from catena.service.views import (
    EndorsementDetail,
    EndorsementImport,
    EndorsementRequest,
    EndorsementView,
    RejudgingView,
)

SHORT = 12
_DAY = 10

_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED)


@click.group(cls=output.Noun, name="endorsement")
def noun() -> None:
    """Say who may vouch for a TPM: vendors' roots, intermediates and revocation lists.

    NAME is a name or the first digits of a SHA-256, as `list` shows them.
    """


@noun.command(
    name="import",
    exits=(*_EXITS, ExitCode.MALFORMED),
    examples=(
        "catena endorsement import --kind vendor TrustedTpm/ --source 'Microsoft TrustedTpm.cab, 2026-05'",
        "catena endorsement import --kind vendor nuvoton-roots.pem nuvoton.crl",
        "catena endorsement import our-tpm-ca.pem   # an enterprise's own authority",
    ),
)
@click.argument(
    "files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE..."
)
@click.option(
    "--kind",
    type=click.Choice(("vendor", "enterprise", "software")),
    default="enterprise",
    show_default=True,
    help="Whose the roots are: a fact for policies (tpm_kind).",
)
@click.option(
    "--source",
    default="",
    help="Where the files come from, in your words; they are in the log for good.",
)
@connection_options
@output.output_option
def import_files(
    *,
    files: tuple[Path, ...],
    kind: str,
    source: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Accept the certificates and revocation lists in files (DER or PEM), zips and folders.

    The server tells roots from intermediates and logs each before it counts. Compare the digests
    with those that the vendor publishes: whoever controls a root can make TPMs. What is not
    accepted is listed with the reason, and the exit code is 14.
    """
    from catena.server.endorsement_files import batches, gather

    gathered = gather(files)
    answers = []
    with connection.open() as client:
        for batch in batches(gathered.items):
            request = msgspec.convert(
                {"vouches": kind, "source": source, "items": batch}, EndorsementRequest
            )
            answers.append(client.import_endorsements(request))
    told = EndorsementImport(
        accepted=tuple(one for answer in answers for one in answer.accepted),
        known=tuple(one for answer in answers for one in answer.known),
        refused=(*gathered.refused, *(one for answer in answers for one in answer.refused)),
    )
    output.emit(told, _render_import, as_json=as_json)
    if told.refused:
        click.get_current_context().exit(ExitCode.MALFORMED)


@noun.command(name="list", exits=_EXITS, examples=("catena endorsement list",))
@connection_options
@output.output_option
def list_endorsements(*, connection: Connection, as_json: bool) -> None:
    """List all that may vouch for a TPM, with where it came from."""
    with connection.open() as client:
        found = client.endorsements()
    output.emit(found, _render_list, as_json=as_json)


@noun.command(exits=_EXITS, examples=("catena endorsement show nuvoton-tpm-root-ca-2112",))
@click.argument("name")
@connection_options
@output.output_option
def show(*, name: str, connection: Connection, as_json: bool) -> None:
    """Show one root, intermediate or revocation list, with its provenance and as PEM."""
    with connection.open() as client:
        detail = client.endorsement(name)
    output.emit(detail, _render_detail, as_json=as_json)


@noun.command(
    exits=(*_EXITS, ExitCode.USAGE), examples=("catena endorsement withdraw 3fa94c02d1e8a7b6",)
)
@click.argument("name")
@connection_options
@output.output_option
def withdraw(*, name: str, connection: Connection, as_json: bool) -> None:
    """Let one no longer count. Nodes below it are judged again: who has no other path loses trust.

    `catena endorsement progress` says how far that is. A root that `ek_roots` of server.toml names is withdrawn there.
    """
    with connection.open() as client:
        view = client.withdraw_endorsement(name)
    output.emit(view, lambda one: _render_list((one,)), as_json=as_json)


@noun.command(exits=_EXITS, examples=("catena endorsement progress",))
@connection_options
@output.output_option
def progress(*, connection: Connection, as_json: bool) -> None:
    """Show whose nodes are being judged again, because a root, an intermediate or a list changed.

    Two passes are made for each change; the second looks for machines that enrolled meanwhile.
    """
    with connection.open() as client:
        found = client.rejudging()
    output.emit(found, _render_progress, as_json=as_json)


def _render_progress(found: RejudgingView) -> None:
    concerned = [one for one in found.open if one.nodes]
    if concerned:
        output.table(
            ("authority", "changed", "nodes", "judged", "pass"),
            (
                (
                    printable(one.name),
                    one.changed_at,
                    str(one.nodes),
                    str(one.judged),
                    "second" if one.is_second else "first",
                )
                for one in concerned
            ),
        )
    elif not found.open:
        click.echo("every node is judged by what is accepted now")
    if others := len(found.open) - len(concerned):
        click.echo(f"{others} changed authorities have no nodes below them")
    if found.unknown:
        click.echo(
            f"{found.unknown} nodes enrolled before their certificates were kept: "
            "they are not judged before they enrol again"
        )


def _render_import(told: EndorsementImport) -> None:
    if told.accepted:
        _render_list(told.accepted)
    counts = f"{len(told.accepted)} accepted, {len(told.known)} known before"
    click.echo(f"{counts}, {len(told.refused)} not accepted")
    for one in told.refused:
        click.echo(f"✗ {printable(one.file)}: {printable(one.message)} [{one.code}]")


def _render_list(found: tuple[EndorsementView, ...]) -> None:
    if not found:
        click.echo("nothing vouches for TPMs: only pinned ones can enrol")
        return
    output.table(
        ("name", "what", "until", "state", "from", "sha256"),
        (
            (
                printable(one.name),
                one.type if one.vouches is None else f"{one.vouches} {one.type}",
                one.not_after[:_DAY],
                one.state,
                printable(one.source or one.file or "-"),
                one.sha256[:SHORT],
            )
            for one in found
        ),
    )


def _render_detail(detail: EndorsementDetail) -> None:
    one = detail.endorsement
    rows = (
        ("name", one.name),
        ("type", one.type if one.vouches is None else f"{one.type}, vouches as {one.vouches}"),
        ("subject", one.subject),
        ("issuer", one.issuer),
        ("sha256", one.sha256),
        ("from", one.not_before),
        ("next update" if one.type == "crl" else "until", one.not_after),
        ("state", one.state),
        ("revokes", "-" if one.revoked is None else f"{one.revoked} certificates"),
        ("tolerances", ", ".join(one.tolerances) or "none needed"),
        ("file", one.file or "-"),
        ("source", one.source or "-"),
        ("accepted", one.accepted_at or "with server.toml"),
        ("accepted by", one.accepted_by or "-"),
        ("nodes below", str(detail.nodes)),
    )
    for label, value in rows:
        click.echo(f"{label:<12} {printable(value)}")
    click.echo()
    click.echo(detail.pem, nl=False)
