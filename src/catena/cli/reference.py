"""``catena reference``: say what machines may measure."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from catena.cli import output
from catena.cli.connection import Connection, connection_options, printable
from catena.errors import ExitCode, NotFound, UsageError
from catena.service.views import (
    CaptureRequest,
    CaptureView,
    PcrPolicyRequest,
    ReferenceDetail,
    ReferenceView,
)

MAX_DOCUMENT = 4 * 1024 * 1024

_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED)


class NoDocument(NotFound):
    """A document that cannot be read."""

    code = "no-document"
    remedy = "Give the .dsse.json file that `catena os build` or `catena keys enroll` wrote."


class MisnamedImport(UsageError):
    """A PCR policy without a name and version, or a signed document with new ones."""

    code = "misnamed-import"
    remedy = "Give --name and --version with a PCR policy only; a signed document has its own."


@click.group(cls=output.Noun, name="reference")
def noun() -> None:
    """Say what machines may measure: releases, key sets, firmware, PCR and container policies."""


@noun.command(
    name="import",
    exits=(*_EXITS, ExitCode.USAGE),
    examples=(
        "catena reference import release.dsse.json",
        "catena reference import containers.dsse.json",
        "catena reference import flatcar_pcr_policy.zip --name flatcar --version 3510.2.0",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", help="What to call a PCR policy, which has no name of its own.")
@click.option("--version", help="The version of the operating system that it describes.")
@connection_options
@output.output_option
def import_document(
    *,
    file: Path,
    name: str | None,
    version: str | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Accept a signed release manifest, key set or container policy, or a PCR policy (JSON or zip).

    The server verifies the signature of a document. A PCR policy has none: you vouch for it.
    Every value that does not hold as it was written is a warning.
    """
    from catena.formats.pcrpolicy import is_pcr_policy

    content = _read(file)
    policy = is_pcr_policy(content)
    if policy != bool(name) or policy != bool(version):
        raise MisnamedImport("--name and --version do not fit to what this file is")
    with connection.open() as client:
        if name and version:
            request = PcrPolicyRequest(name=name, version=version, content=content)
            view = client.import_pcr_policy(request)
        else:
            view = client.import_reference(content)
    output.emit(view, lambda one: _render_list((one,)), as_json=as_json)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as source:
            return source.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise NoDocument(f"cannot read {file}: {error.strerror}") from error


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


@noun.command(
    exits=_EXITS,
    examples=(
        "catena reference show lab-1 -o json",
        "catena reference show quirk:windows-separators",
    ),
)
@click.argument("name")
@connection_options
@output.output_option
def show(
    *,
    name: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Show one reference by name, NAME-VERSION or digest, with every measurement it explains.

    A quirk rule's name is quirk:ID.
    """
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
                one.accepted_at or "with catena",
                one.sha256[:16],
            )
            for one in references
        ),
    )
    for one in references:
        for warning in one.warnings:
            click.echo(f"warning: {printable(one.name)}: {printable(warning)}")


def _render_capture(seen: CaptureView, *, err: bool) -> None:
    click.echo(f"node      {seen.name or seen.node}", err=err)
    click.echo(f"boot log  {seen.boot_log}", err=err)
    for event in seen.events:
        click.echo(f"  PCR {event.pcr}  {printable(event.what)}", err=err)


def _render_detail(detail: ReferenceDetail) -> None:
    _render_list((detail.reference,))
    click.echo()
    if detail.reference.kind == "container-policy":
        _render_scopes(detail)
        return
    output.table(
        ("PCR", "id", "what"),
        ((str(event.pcr), printable(event.id), printable(event.what)) for event in detail.events),
    )


def _render_scopes(detail: ReferenceDetail) -> None:
    """Whose images may run; the document as JSON has the keys."""
    from catena.formats.containerpolicy import ContainerPolicy

    policy = msgspec.convert(detail.document, ContainerPolicy)
    output.table(
        ("repository", "publishers", "formats"),
        (
            (
                printable(scope.repository),
                printable(", ".join(scope.publishers)),
                printable(", ".join(scope.formats) or "any"),
            )
            for scope in policy.scopes
        ),
    )
