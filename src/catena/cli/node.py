"""``catena node``: see, explain and admit machines."""

from __future__ import annotations

from typing import get_args

import click

from catena.cli import output
from catena.cli.connection import Connection, connection_options, printable
from catena.cli.node_life import (
    attest,
    expected,
    import_machines,
    reject,
    replace,
    retire,
    unlist,
)
from catena.errors import ExitCode
from catena.formats.nodeapi import NodeState
from catena.service.views import (
    ApprovalRequest,
    ContainerEventView,
    ContainersView,
    ExplanationView,
    LabelsRequest,
    LabelsView,
    NodeView,
    RevocationCause,
    RevocationRequest,
    RevocationView,
)

SHORT_ID = 12
STATES = get_args(NodeState)

_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.UNKNOWN_NODE)


@click.group(cls=output.Noun, name="node")
def noun() -> None:
    """See, explain and admit machines. NODE is a name or the first digits of an id."""


for _verb in (attest, import_machines, expected, unlist, reject, replace, retire):
    noun.add_command(_verb)


@noun.command(
    name="list",
    exits=_EXITS,
    examples=("catena node list", "catena node list --state pending", "catena node list --all"),
)
@click.option("--state", type=click.Choice(STATES), help="Only nodes that are in this state now.")
@click.option("--role", help="Only nodes of this role.")
@click.option("--all", "retired", is_flag=True, help="Retired nodes, too.")
@connection_options
@output.output_option
def list_nodes(
    *,
    state: str | None,
    role: str | None,
    retired: bool,
    connection: Connection,
    as_json: bool,
) -> None:
    """List the nodes with their state; those that wait with what a person needs to decide."""
    with connection.open() as client:
        nodes = client.nodes(state=state, role=role, retired=retired)
    output.emit(nodes, _render_queue if state == "pending" else _render_list, as_json=as_json)


@noun.command(exits=_EXITS, examples=("catena node show web-1", "catena node show 3fa9 -o json"))
@click.argument("node")
@connection_options
@output.output_option
def show(
    *,
    node: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Show one node: identity, state, and the reasons of its last verdict."""
    with connection.open() as client:
        view = client.node(node)
    output.emit(view, _render_node, as_json=as_json)


@noun.command(
    exits=_EXITS, examples=("catena node explain web-1", "catena node explain web-1 -o json")
)
@click.argument("node")
@connection_options
@output.output_option
def explain(
    *,
    node: str,
    connection: Connection,
    as_json: bool,
) -> None:
    """Tell the node's last boot as a story: every event, and which reference accounts for it.

    Then what ran in containers since: each start, command and refusal that the node's gate recorded.
    """
    with connection.open() as client:
        explanation = client.explanation(node)
    output.emit(explanation, _render_explanation, as_json=as_json)


@noun.command(
    exits=_EXITS,
    examples=(
        "catena node approve 3fa9 --name web-1 --role web",
        "catena node approve web-1        # let an untrusted node back in",
    ),
)
@click.argument("node")
@click.option("--name", help="The node's name from now on (a DNS label).")
@click.option("--role", help="The node's role: it decides which secrets the node gets.")
@click.option(
    "--accept-key",
    metavar="SHA256",
    help="Accept this waiting attestation key (`waiting_key` in `node show`) in place of the old.",
)
@connection_options
@output.output_option
def approve(
    *,
    node: str,
    name: str | None,
    role: str | None,
    accept_key: str | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Give a waiting node its name and role, or let an untrusted one back in.

    The node has to attest once more, and be trusted, before it receives anything.
    """
    request = ApprovalRequest(name=name, role=role, accept_key=accept_key)
    with connection.open() as client:
        view = client.approve(node, request)
    output.emit(view, _render_node, as_json=as_json)


@noun.command(
    exits=_EXITS,
    examples=(
        'catena node revoke web-1 --reason "stolen from the rack"',
        'catena node revoke 3fa9 --reason "disk key leaked" --cause key-compromise',
    ),
)
@click.argument("node")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for whoever reads the log.")
@click.option(
    "--cause",
    type=click.Choice(get_args(RevocationCause)),
    default="privilege-withdrawn",
    show_default=True,
    help="Why, for whoever reads the CRL.",
)
@connection_options
@output.output_option
def revoke(
    *,
    node: str,
    reason: str,
    cause: RevocationCause,
    connection: Connection,
    as_json: bool,
) -> None:
    """Take a node's trust away until somebody approves it again.

    Its certificates go on the CRL, it receives no further one, and no secret. What it holds is listed: put
    a new version of each secret (`catena secret rotation` keeps the list).
    """
    request = RevocationRequest(reason=reason, cause=cause)
    with connection.open() as client:
        view = client.revoke(node, request)
    output.emit(view, _render_revocation, as_json=as_json)


@noun.command(
    exits=_EXITS,
    examples=(
        "catena node label web-1 environment=production rack=7",
        "catena node label web-1 --remove rack",
    ),
)
@click.argument("node")
@click.argument("labels", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", multiple=True, metavar="KEY", help="Take this label away; repeatable.")
@connection_options
@output.output_option
def label(
    *,
    node: str,
    labels: tuple[str, ...],
    remove: tuple[str, ...],
    connection: Connection,
    as_json: bool,
) -> None:
    """Give a node labels; `catena secret put --label` selects nodes by them."""
    request = LabelsRequest(labels=labels, remove=remove)
    with connection.open() as client:
        view = client.label(node, request)
    output.emit(view, _render_labels, as_json=as_json)


def _render_labels(view: LabelsView) -> None:
    click.echo(f"{view.name or view.node[:SHORT_ID]}: {', '.join(view.labels) or 'no labels'}")


def _render_revocation(view: RevocationView) -> None:
    name = view.name or view.node[:SHORT_ID]
    click.echo(f"{name} is revoked{'' if view.changed else ' already'}")
    for serial in view.certificates:
        click.echo(f"certificate {serial} is on the CRL")
    for secret in view.secrets:
        click.echo(f"rotate secret {secret.name}: the node holds version {secret.version}")


def _render_list(nodes: tuple[NodeView, ...]) -> None:
    if not nodes:
        click.echo("no nodes have enrolled")
        return
    output.table(
        ("id", "name", "role", "state", "because", "since", "last seen"),
        (
            (
                node.id[:SHORT_ID],
                node.name or _formerly(node) or "-",
                node.role or "-",
                _marked(node),
                printable(node.state_reason or "-"),
                _short(node.state_since) or "-",
                _short(node.last_attested) or "never",
            )
            for node in nodes
        ),
    )


def _short(moment: str | None) -> str:
    """``11-28 12:45`` of a time in UTC; `show` and JSON have all of it."""
    return "" if moment is None else moment[5:16].replace("T", " ")


def _render_queue(nodes: tuple[NodeView, ...]) -> None:
    """What a person needs to decide; the whole id is what they compare with the machine's own."""
    if not nodes:
        click.echo("nobody waits")
    for number, node in enumerate(nodes):
        rows = (
            ("EK fingerprint", node.id),
            ("TPM endorsed by", node.endorsed_by),
            ("endorsement", node.endorsement),
            ("calls itself", f"{node.untrusted_name_hint or '-'} (untrusted)"),
            ("first seen", node.enrolled_at),
            ("approved", node.approved_at or "never"),
            ("last verdict", node.last_verdict or "none yet"),
            ("waiting key", node.waiting_key or "-"),
        )
        if number:
            click.echo()
        for label, value in rows:
            click.echo(f"{label:<16} {printable(value)}")


def _formerly(node: NodeView) -> str:
    return f"({node.former_name})" if node.former_name else ""


def _marked(node: NodeView) -> str:
    """The state; a node that nobody had to approve is shown as such everywhere."""
    return f"{node.state} (open mode)" if node.mode == "open" else node.state


def _render_node(node: NodeView) -> None:
    rows = (
        ("id", node.id),
        ("name", node.name or "-"),
        ("former name", node.former_name or "-"),
        ("role", node.role or "-"),
        ("labels", ", ".join(node.labels) or "-"),
        ("state", _marked(node)),
        ("because", node.state_reason or "-"),
        ("since", node.state_since or "-"),
        ("site", node.site or "-"),
        ("release channel", node.channel or "-"),
        ("TPM endorsed by", node.endorsed_by),
        ("endorsement", node.endorsement),
        ("TPM", _tpm(node)),
        ("TPM firmware", node.firmware or "never quoted"),
        ("TPM tolerances", ", ".join(node.tpm.tolerances) or "none needed"),
        ("enrolled", node.enrolled_at),
        ("approved", node.approved_at or "never"),
        ("last attested", node.last_attested or "never"),
        ("next due", node.due_at or "-"),
        ("demanded by", node.attest_by or "-"),
        ("stale from", node.stale_at or "-"),
        ("last verdict", node.last_verdict or "-"),
        ("certificate until", node.certificate_expires or "none"),
        ("boot log", node.boot_log or "-"),
        ("waiting key", node.waiting_key or "-"),
        ("calls itself", f"{node.untrusted_name_hint or '-'} (untrusted)"),
    )
    for label, value in rows:
        click.echo(f"{label:<18} {printable(value)}")
    for reason in node.reasons:
        click.echo(f"{'reason':<18} {printable(reason.message)} [{reason.code}]")
        if reason.remedy:
            click.echo(f"{'':<18} {printable(reason.remedy)}")


def _tpm(node: NodeView) -> str:
    """``discrete, NTC NPCT75x, certified with firmware 7.2``."""
    tpm = node.tpm
    certified = f"certified with firmware {tpm.version}" if tpm.version else ""
    parts = (tpm.type, f"{tpm.vendor} {tpm.model}".strip(), certified)
    return ", ".join(filter(None, parts))


def _render_explanation(found: ExplanationView) -> None:
    unclaimed = sum(event.claimed_by is None for event in found.events)
    click.echo(f"node     {found.name or found.node}, {found.state}")
    click.echo(f"verdict  {found.verdict} at {found.at}, entry {found.log_entry} of the audit log")
    click.echo(f"boot     {len(found.events)} events, {unclaimed} unaccounted for")
    click.echo()
    output.table(
        ("", "PCR", "what happened", "accounted for by"),
        (
            (
                "✓" if event.claimed_by else "✗",
                str(event.pcr),
                printable(event.description),
                printable(event.claimed_by or f"nobody: {event.why}"),
            )
            for event in found.events
        ),
    )
    if found.containers is not None:
        _render_containers(found.containers)
    for tenant in found.tenants:
        _render_containers(tenant)
    for reason in found.reasons:
        click.echo(f"✗ {printable(reason.message)} [{reason.code}]")
    if found.since is not None:
        from catena.cli.eventlog_text import render_difference

        click.echo("\nsince the last trusted boot before this one")
        render_difference(found.since)


def _render_containers(found: ContainersView) -> None:
    counts = f"{found.started} started, {found.refused} refused, {found.unverified} unverified"
    tenant = f" (tenant of NV index {found.nv_index})" if found.nv_index else ""
    click.echo(
        f"\ncontainers  {counts}; policy {printable(found.policy or 'none that is accepted')}{tenant}"
    )
    if found.omitted:
        click.echo(f"            {found.omitted} earlier records are in the audit log only")
    click.echo()
    output.table(
        ("", "when", "what happened", "accounted for by"),
        (
            (
                _container_mark(event),
                event.at or "?",
                printable(_what_happened(event)),
                printable(event.claimed_by or f"nobody: {event.why}"),
            )
            for event in found.events
        ),
    )


def _container_mark(event: ContainerEventView) -> str:
    """What was refused ran nothing, so it speaks for the node."""
    if event.claimed_by is None:
        return "✗"
    return "–" if event.kind == "deny" else "✓"


def _what_happened(event: ContainerEventView) -> str:
    """``create web-1: /bin/server; image registry/web sha256:…; signed by acme (cosign-legacy)``."""
    head = f"{event.kind} {event.container}".rstrip()
    image = " ".join(filter(None, (event.repository, event.image[: len("sha256:") + SHORT_ID])))
    signature = f" ({event.signature})" if event.signature else ""
    parts = (
        f"{head}: {event.what}" if event.what else head,
        f"image {image}" if image else "",
        f"signed by {event.publisher}{signature}" if event.publisher else "",
        f"in pod {event.sandbox}" if event.sandbox else "",
    )
    return "; ".join(filter(None, parts))
