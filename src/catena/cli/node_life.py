"""``catena node`` from the list of expected machines to the end of a node."""

from __future__ import annotations

from pathlib import Path

import click

from catena.cli import output
from catena.cli.connection import Connection, connection_options, printable
from catena.errors import ExitCode, NotFound, UsageError
from catena.service.views import (
    Demanded,
    DemandRequest,
    ExpectedView,
    Farewell,
    FarewellRequest,
    Imported,
    InventoryRequest,
    ReplacementRequest,
)

_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.UNKNOWN_NODE)


class NoSuchList(NotFound):
    """A list of machines that cannot be read."""

    code = "no-such-list"
    remedy = "Give the path of a CSV or JSON file; the manual says what it holds."


class NobodyMeant(UsageError):
    """A demand that does not say whose attestation is wanted, or says it twice."""

    code = "nobody-meant"
    remedy = "Give one of NODE, --role and --all."


_reason = click.option("--reason", required=True, help="Why; it is in the audit log as you say it.")


@click.command(
    cls=output.Verb,
    exits=_EXITS,
    examples=("catena node retire web-1 --reason 'sold; disk was shredded'",),
)
@click.argument("node")
@_reason
@connection_options
@output.output_option
def retire(*, node: str, reason: str, connection: Connection, as_json: bool) -> None:
    """Take a node off the rolls for good, and list the secrets it was given.

    Its name is free, its certificate is not renewed, and whatever it sends is refused and logged.
    """
    with connection.open() as client:
        done = client.retire(node, FarewellRequest(reason=reason))
    output.emit(done, _render_farewell, as_json=as_json)


@click.command(
    cls=output.Verb,
    exits=_EXITS,
    examples=("catena node replace web-1 --with 3fa9",),
)
@click.argument("node")
@click.option("--with", "by", required=True, metavar="ID", help="The new TPM, which waits.")
@connection_options
@output.output_option
def replace(*, node: str, by: str, connection: Connection, as_json: bool) -> None:
    """Give a node's name and role to another TPM, which enrolled and waits; retire the old one.

    For a mainboard or TPM that was exchanged. The new TPM has to attest, and be trusted, before it
    receives anything.
    """
    with connection.open() as client:
        done = client.replace(node, ReplacementRequest(by=by))
    output.emit(done, _render_farewell, as_json=as_json)


@click.command(
    cls=output.Verb, exits=_EXITS, examples=("catena node reject 3fa9 --reason 'not one of ours'",)
)
@click.argument("node")
@_reason
@connection_options
@output.output_option
def reject(*, node: str, reason: str, connection: Connection, as_json: bool) -> None:
    """Refuse a machine that waits for approval, or the other key of one that is known.

    A rejected machine is retired: it does not come back into the queue by itself.
    """
    with connection.open() as client:
        done = client.reject(node, FarewellRequest(reason=reason))
    output.emit(done, _render_farewell, as_json=as_json)


@click.command(
    cls=output.Verb,
    exits=_EXITS,
    examples=(
        "catena node attest web-1",
        "catena node attest --role web --within 60",
        "catena node attest --all",
    ),
)
@click.argument("node", required=False)
@click.option("--role", help="All nodes of this role.")
@click.option("--all", "everybody", is_flag=True, help="All nodes.")
@click.option(
    "--within",
    type=click.IntRange(1, 86_400),
    metavar="SECONDS",
    help="A trusted node that does not attest in this time is stale; two intervals by default.",
)
@connection_options
@output.output_option
def attest(
    *,
    node: str | None,
    role: str | None,
    everybody: bool,
    within: int | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Have nodes attest now. An agent learns of it when it asks next (`demand_poll`)."""
    if [node is not None, role is not None, everybody].count(True) != 1:
        raise NobodyMeant("say whose attestation is wanted")
    with connection.open() as client:
        asked = client.demand(DemandRequest(node=node, role=role, within=within))
    output.emit(asked, _render_demand, as_json=as_json)


@click.command(
    cls=output.Verb,
    name="import",
    exits=(*_EXITS, ExitCode.MALFORMED),
    examples=("catena node import machines.csv --dry-run", "catena node import machines.json"),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Only say what would be imported.")
@connection_options
@output.output_option
def import_machines(*, file: Path, dry_run: bool, connection: Connection, as_json: bool) -> None:
    """Expect the machines of a CSV or JSON list: each TPM with its name and role.

    If one line is bad, none is imported, and all bad ones are named. In the mode `inventory` these
    machines are admitted when they enrol, and no others.
    """
    from catena.formats import inventory

    try:
        with file.open("rb") as opened:
            content = opened.read(inventory.MAX_LIST + 1)
    except OSError as error:
        raise NoSuchList(f"cannot read {file}", got=error.strerror) from error
    request = InventoryRequest(machines=inventory.parse(content), dry_run=dry_run)
    with connection.open() as client:
        done = client.expect(request)
    output.emit(done, _render_import, as_json=as_json)


@click.command(
    cls=output.Verb, exits=_EXITS, examples=("catena node expected", "catena node expected --all")
)
@click.option("--all", "everything", is_flag=True, help="Machines that did enrol, too.")
@connection_options
@output.output_option
def expected(*, everything: bool, connection: Connection, as_json: bool) -> None:
    """List the machines that are expected and have not shown up."""
    with connection.open() as client:
        machines = client.expected(all_listed=everything)
    output.emit(machines, _render_expected, as_json=as_json)


@click.command(cls=output.Verb, exits=_EXITS, examples=("catena node unlist web-7",))
@click.argument("name")
@connection_options
@output.output_option
def unlist(*, name: str, connection: Connection, as_json: bool) -> None:
    """Expect a machine no longer. A node that it became stays as it is."""
    with connection.open() as client:
        machine = client.unlist(name)
    output.emit((machine,), _render_expected, as_json=as_json)


def _render_farewell(done: Farewell) -> None:
    node = done.node
    name = node.name or node.former_name or node.id
    because = f" ({node.state_reason})" if node.state_reason else ""
    click.echo(f"{printable(name)} is {node.state}{printable(because)}")
    if done.secrets:
        click.echo(f"to rotate: {', '.join(done.secrets)}")


def _render_demand(asked: Demanded) -> None:
    click.echo(f"{asked.nodes} nodes are to attest by {asked.by}")


def _render_import(done: Imported) -> None:
    verb = "would be expected" if done.dry_run else "are expected now"
    click.echo(f"{done.added} machines {verb}; {done.unchanged} were listed already")


def _render_expected(machines: tuple[ExpectedView, ...]) -> None:
    if not machines:
        click.echo("no machine is expected")
        return
    output.table(
        ("name", "role", "site", "channel", "TPM", "enrolled as"),
        (
            (
                one.name,
                one.role,
                one.site or "-",
                one.channel or "-",
                printable(one.ek_sha256 or f"serial {one.ek_serial} of {one.ek_issuer}"),
                one.node or "-",
            )
            for one in machines
        ),
    )
