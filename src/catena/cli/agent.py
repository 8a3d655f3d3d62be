"""``catena agent``: this machine proves itself to the trust service.

``run`` imports nothing that a node does not need: no HTTP framework, no database, no terminal
library. The agent's own modules load inside the verbs, so that ``--help`` needs no TPM library.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catena.cli import output
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.agent.status import AgentStatus
    from catena.formats.nodeapi import EnrollResult

config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="/etc/catena/agent.toml",
    show_default=True,
    help="The agent's configuration file.",
)


@click.group(cls=output.Noun)
def noun() -> None:
    """Prove this machine to the trust service and receive its identity."""


@noun.command(
    exits=[ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED],
    examples=["catena agent join", "catena agent join --config ./agent.toml -o json"],
)
@config_option
@output.output_option
def join(config_path: Path, as_json: bool) -> None:
    """Enrol this machine's TPM, once.

    The trust service then knows the TPM. Under the mode `approve` it waits for a person, who
    runs `catena node approve`; `catena agent run` also enrols by itself when it has to.
    """
    from catena.agent import config, trust
    from catena.agent.client import TrustClient
    from catena.agent.enrolment import enrol
    from catena.tpm.device import open_tpm

    settings = config.load(config_path)
    with open_tpm(settings.tcti, settings.keys) as tpm:
        believed = trust.authorities_file(settings.ca, settings.runtime_dir)
        with TrustClient(settings.server, believed) as client:
            result = enrol(tpm, client, name_hint=settings.name_hint)
    output.emit(result, _print_enrolment, as_json=as_json)


@noun.command(
    exits=[ExitCode.NOT_FOUND, ExitCode.UNTRUSTED],
    examples=["catena agent run --config /etc/catena/agent.toml"],
)
@config_option
def run(config_path: Path) -> None:
    """Attest now and on an interval, until stopped; one JSON line per event.

    While this machine is trusted, `runtime_dir` holds node.crt, node.key and secrets/.
    They are removed when it is not, when the certificate expires, and when the agent ends.
    """
    from catena.agent.serving import serve

    serve(config_path)


@noun.command(
    exits=[ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED],
    examples=["catena agent gate --config /etc/catena/gate.toml"],
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default="/etc/catena/gate.toml",
    show_default=True,
    help="The gate's configuration file.",
)
def gate(config_path: Path) -> None:
    """Guard the containers of this machine, until stopped; one JSON line per event.

    The wrapper that `catena container install` puts before container engines asks the gate, and
    starts nothing without its answer. SIGHUP makes it look at policy and image stores at once.
    """
    from catena.agent.gate.serving import serve

    serve(config_path)


@noun.command(
    exits=[
        ExitCode.NOT_FOUND,
        ExitCode.UNTRUSTED,
        ExitCode.STALE,
        ExitCode.UNKNOWN_NODE,
        ExitCode.MALFORMED,
    ],
    examples=["catena agent status", "catena agent status -o json"],
)
@config_option
@output.output_option
def status(config_path: Path, as_json: bool) -> int:
    """Show what the running agent last learned; the exit code is the verdict.

    0 with a certificate that is valid now, 10 untrusted, 11 without a current verdict,
    12 while the machine waits for approval.
    """
    from catena.agent import config
    from catena.agent.status import read

    current = read(config.load(config_path).runtime_dir)
    output.emit(current, _print_status, as_json=as_json)
    return current.exit_code(_now())


def _now() -> datetime:
    return datetime.now(UTC)


def _print_enrolment(result: EnrollResult) -> None:
    click.echo(f"node   {result.node_id}")
    click.echo(f"name   {result.name or '(not yet named)'}")
    click.echo(f"state  {result.state}")
    if result.state == "pending":
        click.echo(f"next   a person runs: catena node approve {result.node_id[:16]}")


def _print_status(current: AgentStatus) -> None:
    rows = {
        "node": current.node_id,
        "name": current.name,
        "state": current.state,
        "verdict": current.verdict,
        "attested": current.attested_at,
        "certificate until": current.certificate_until,
        "secrets": ", ".join(current.secrets) or None,
        "next attempt": current.next_attempt_at,
    }
    for label, value in rows.items():
        click.echo(f"{label:18} {'-' if value is None else value}")
    for reason in current.reasons:
        click.echo(f"{'reason':18} {reason.message} [{reason.code}]")
    if current.failure is not None:
        click.echo(f"{'last failure':18} {current.failure.message} [{current.failure.code}]")
