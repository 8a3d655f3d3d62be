"""``catena reference``: say what machines may measure."""

from __future__ import annotations

from pathlib import Path

import click

from catena.cli import output
from catena.cli.connection import Connection, connection_options, printable
from catena.errors import ExitCode, NotFound
from catena.service.views import CaptureRequest, CaptureView, ReferenceDetail, ReferenceView

MAX_DOCUMENT = 4 * 1024 * 1024

_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED)


class NoDocument(NotFound):
    """A document that cannot be read."""

    code = "no-document"
    remedy = "Give the .dsse.json file that `catena os build` or `catena keys enroll` wrote."


@click.group(cls=output.Noun, name="reference")
def noun() -> None:
    """Say what machines may measure: releases, key sets, firmware."""


@noun.command(name="import", exits=_EXITS, examples=("catena reference import release.dsse.json",))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@connection_options
@output.output_option
def import_document(
    *,
    file: Path,
    connection: Connection,
    as_json: bool,
) -> None:
    """Accept a signed release manifest or key set. The server verifies the signature."""
    try:
        with file.open("rb") as source:
            content = source.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise NoDocument(f"cannot read {file}: {error.strerror}") from error
    with connection.open() as client:
        view = client.import_reference(content)
    output.emit(view, lambda one: _render_list((one,)), as_json=as_json)


@noun.command(
    exits=(*_EXITS, ExitCode.UNKNOWN_NODE),
    examples=("catena reference capture web-1 --name ovmf-2022.11",),
)
@click.argument("node")
@click.option("--name", required=True, help="What to call this firmware (a DNS label).")
@click.option("--yes", is_flag=True, help="Accept without asking: you have looked already.")
@connection_options
@output.output_option
def capture(
    *,
    node: str,
    name: str,
    connection: Connection,
    yes: bool,
    as_json: bool,
) -> None:
    """Accept what NODE's firmware measured as the reference for such machines.

    Shows every event first. Machines that measure the same will be trusted, so do this on a
    machine that you know to be good.
    """
    with connection.open() as client:
        seen = client.preview_capture(node)
        if not yes:
            _render_capture(seen, err=as_json)
            click.confirm("Accept these measurements?", abort=True, err=as_json)
        request = CaptureRequest(node=seen.node, name=name, boot_log=seen.boot_log)
        view = client.capture(request)
    output.emit(view, lambda one: _render_list((one,)), as_json=as_json)


@noun.command(name="list", exits=_EXITS, examples=("catena reference list",))
@connection_options
@output.output_option
def list_references(
    *,
    connection: Connection,
    as_json: bool,
) -> None:
    """List the references that machines are judged against."""
    with connection.open() as client:
        references = client.references()
    output.emit(references, _render_list, as_json=as_json)


@noun.command(exits=_EXITS, examples=("catena reference show lab-1 -o json",))
@click.argument("name")
@connection_options
@output.output_option
def show(
    *,
    name: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Show one reference by name, NAME-VERSION or digest, with every measurement it explains."""
    with connection.open() as client:
        detail = client.reference(name)
    output.emit(detail, _render_detail, as_json=as_json)


def _render_list(references: tuple[ReferenceView, ...]) -> None:
    if not references:
        click.echo("no references have been accepted")
        return
    output.table(
        ("name", "kind", "version", "events", "accepted", "sha256"),
        (
            (
                printable(one.name),
                one.kind,
                printable(one.version),
                str(one.events),
                one.accepted_at,
                one.sha256[:16],
            )
            for one in references
        ),
    )


def _render_capture(seen: CaptureView, *, err: bool) -> None:
    click.echo(f"node      {seen.name or seen.node}", err=err)
    click.echo(f"boot log  {seen.boot_log}", err=err)
    for event in seen.events:
        click.echo(f"  PCR {event.pcr}  {printable(event.what)}", err=err)


def _render_detail(detail: ReferenceDetail) -> None:
    _render_list((detail.reference,))
    click.echo()
    output.table(
        ("PCR", "id", "what"),
        ((str(event.pcr), printable(event.id), printable(event.what)) for event in detail.events),
    )
