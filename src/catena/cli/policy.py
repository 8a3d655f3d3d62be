"""``catena policy``: check what a boot must show before it is trusted."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from catena.appraise.clause import PolicyError, PolicySyntax
from catena.appraise.facts import FACT_TABLE
from catena.appraise.policy import MAX_POLICY, check_policy, compile_policy, default_policy_text
from catena.cli import output
from catena.cli.connection import Connection, connection_options, printable
from catena.cli.keys import passphrase_option, read_passphrase
from catena.errors import ExitCode, UsageError
from catena.formats.dsse import Subject
from catena.formats.policies import PolicyDocument
from catena.keys import hierarchy
from catena.keys.documents import seal_document
from catena.keys.hierarchy import KeyName
from catena.keys.signer import write_new
from catena.service.views import (
    PolicyHistory,
    PolicyView,
    SimulationRequest,
    SimulationView,
)

MAX_DOCUMENT = 4 * 1024 * 1024
MAX_FILE = 4 * MAX_POLICY
"""Bytes: a character takes four at most."""


class PolicyFault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong; ``line`` and ``column`` count from 1, null for the whole policy."""

    code: str
    message: str
    line: int | None
    column: int | None
    remedy: str


class ClauseView(msgspec.Struct, frozen=True, kw_only=True):
    """One clause of a policy."""

    name: str
    says: str
    line: int


class PolicyCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that was checked; ``sha256`` names its text in verdicts."""

    sha256: str
    clauses: tuple[ClauseView, ...]
    errors: tuple[PolicyFault, ...]


class BadPolicyName(UsageError):
    """A name or version that no policy document can carry."""

    code = "bad-policy-name"
    remedy = "Use a DNS label as the name and a version from 1 to 2147483647."


class SignedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that was signed; ``sha256`` names its text in verdicts."""

    name: str
    version: int
    sha256: str
    document: str


class FactView(msgspec.Struct, frozen=True, kw_only=True):
    """A fact: ``worst`` and ``best`` are the ends of its range, ``type`` is CEL's name."""

    name: str
    type: str
    meaning: str
    worst: bool | int | str | tuple[str, ...]
    best: bool | int | str | tuple[str, ...]


@click.group(cls=output.Noun, name="policy")
def noun() -> None:
    """Say what a boot must show before it is trusted."""


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.POLICY),
    examples=("catena policy check strict.cel", "catena policy check - -o json < strict.cel"),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@output.output_option
def check(*, file: Path, as_json: bool) -> int:
    """Find everything that is wrong with the policy in FILE, with line and column.

    FILE may be - for standard input. No server is asked.
    """
    view = _check(_content(file))
    output.emit(view, lambda one: _render_check(one, file), as_json=as_json)
    return ExitCode.POLICY if view.errors else ExitCode.OK


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.POLICY),
    examples=(
        "catena policy sign strict.cel --keys ./keys --name strict --version 1 --to policy.dsse.json",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--keys", "folder", required=True, type=click.Path(path_type=Path), help="Key folder."
)
@click.option("--name", required=True, help="What to call this policy (a DNS label).")
@click.option("--version", required=True, type=int, help="Number of this version; it only grows.")
@click.option("--previous", help="SHA-256 of the policy text that this one is meant to replace.")
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Signed policy to write; must not exist.",
)
@passphrase_option
@output.output_option
def sign(
    *,
    file: Path,
    folder: Path,
    name: str,
    version: int,
    previous: str | None,
    target: Path,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Sign the policy in FILE with the release key. What `check` refuses is not signed."""
    document = _document(_content(file), name, version, previous)
    policy = compile_policy(document.text)
    signer = hierarchy.open_folder(folder, read_passphrase(passphrase_file)).signer(KeyName.RELEASE)
    subject = Subject(name=document.name, digest={"sha256": policy.digest})
    write_new(target, seal_document(document, [subject], signer), mode=0o644)
    view = SignedPolicy(name=name, version=version, sha256=policy.digest, document=str(target))
    output.emit(view, _render_signed, as_json=as_json)


@noun.command(examples=("catena policy facts", "catena policy facts -o json"))
@output.output_option
def facts(*, as_json: bool) -> None:
    """List the facts that a policy can judge, and the ends of their ranges."""
    output.emit(tuple(_fact_views()), _render_facts, as_json=as_json)


@noun.command(name="default", examples=("catena policy default > strict.cel",))
@output.output_option
def default(*, as_json: bool) -> None:
    """Print the policy that catena ships, to start one's own from."""
    output.emit(default_policy_text(), lambda text: click.echo(text, nl=False), as_json=as_json)


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.POLICY, ExitCode.MALFORMED),
    examples=("catena policy apply policy.dsse.json",),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@connection_options
@output.output_option
def apply(*, file: Path, connection: Connection, as_json: bool) -> None:
    """Put a signed policy in force. The server verifies it and logs it before it counts.

    Its version must be above that of the policy in force.
    """
    with connection.open() as client:
        view = client.apply_policy(_document_of(file))
    output.emit(view, lambda one: _render_policies((one,)), as_json=as_json)


@noun.command(examples=("catena policy show", "catena policy show -o json"))
@connection_options
@output.output_option
def show(*, connection: Connection, as_json: bool) -> None:
    """Show the policy in force, and all that were in force before it."""
    with connection.open() as client:
        history = client.policy()
    output.emit(history, _render_history, as_json=as_json)


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.POLICY, ExitCode.MALFORMED),
    examples=(
        "catena policy simulate --policy strict.cel",
        "catena policy simulate --reference edge-2/release.dsse.json --without edge-1 --floor 2",
    ),
)
@click.option("--policy", type=click.Path(path_type=Path, dir_okay=False), help="Policy (text).")
@click.option(
    "--reference",
    "references",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Signed release or key set to add (repeatable).",
)
@click.option("--without", multiple=True, help="Active reference to leave out (repeatable).")
@click.option("--floor", type=click.IntRange(min=0), help="Lowest accepted security version.")
@connection_options
@output.output_option
def simulate(
    *,
    policy: Path | None,
    references: tuple[Path, ...],
    without: tuple[str, ...],
    floor: int | None,
    connection: Connection,
    as_json: bool,
) -> None:
    """Judge every node's newest evidence under another policy or other references.

    Lists whose verdict would change, and why. Changes nothing.
    """
    request = SimulationRequest(
        policy=None if policy is None else _text(_content(policy)),
        references=tuple(_document_of(one) for one in references),
        without=without,
        floor=floor,
    )
    with connection.open() as client:
        view = client.simulate(request)
    output.emit(view, _render_simulation, as_json=as_json)


def _document_of(file: Path) -> bytes:
    with file.open("rb") as source:
        return source.read(MAX_DOCUMENT + 1)


def _render_policies(views: Sequence[PolicyView]) -> None:
    output.table(
        ("policy", "version", "applied", "by", "sha256"),
        (
            (
                printable(one.name),
                str(one.version),
                one.applied_at or "shipped",
                printable(one.applied_by or "-"),
                one.sha256,
            )
            for one in views
        ),
    )


def _render_history(history: PolicyHistory) -> None:
    _render_policies((history.current, *history.history))
    click.echo()
    click.echo("\n".join(printable(line) for line in history.current.text.splitlines()))


def _render_simulation(view: SimulationView) -> None:
    changed = [one for one in view.nodes if one.changed]
    for one in changed:
        click.echo(f"{printable(one.name or one.node[:12])}: {one.before} → {one.after}")
        for reason in one.reasons:
            click.echo(f"  {printable(reason.message)} [{reason.code}]")
    click.echo(f"{view.changed} of {len(view.nodes)} nodes would be judged otherwise")


def _content(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read(MAX_FILE + 1)
    with file.open("rb") as source:
        return source.read(MAX_FILE + 1)


def _document(content: bytes, name: str, version: int, previous: str | None) -> PolicyDocument:
    """The document to sign, held to the same bounds as when it is read."""
    text = _text(content)
    fields = {"name": name, "version": version, "text": text, "previous": previous}
    try:
        return msgspec.convert(fields, PolicyDocument)
    except msgspec.ValidationError as error:
        raise BadPolicyName(f"not a policy document: {error}") from error


def _text(content: bytes) -> str:
    """A policy's text. Raises ``PolicySyntax``."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise PolicySyntax(f"not UTF-8 text at byte {error.start}") from error
    if len(text) > MAX_POLICY:
        raise PolicySyntax(f"a policy has at most {MAX_POLICY} characters")
    return text


def _check(content: bytes) -> PolicyCheck:
    digest = hashlib.sha256(content).hexdigest()
    try:
        checked = check_policy(content.decode())
    except UnicodeDecodeError as error:
        fault = _fault(PolicySyntax(f"not UTF-8 text at byte {error.start}"))
        return PolicyCheck(sha256=digest, clauses=(), errors=(fault,))
    return PolicyCheck(
        sha256=digest,
        clauses=tuple(
            ClauseView(name=one.name, says=one.says, line=one.line) for one in checked.clauses
        ),
        errors=tuple(_fault(one) for one in checked.faults),
    )


def _fault(error: PolicyError) -> PolicyFault:
    got = "" if error.got is None else f": {error.got}"
    return PolicyFault(
        code=error.code,
        message=f"{error.message}{got}",
        line=error.place.line if error.place else None,
        column=error.place.column if error.place else None,
        remedy=error.remedy,
    )


def _render_check(view: PolicyCheck, file: Path) -> None:
    for one in view.errors:
        place = "" if one.line is None else f":{one.line}:{one.column}"
        click.echo(f"{printable(str(file))}{place}: {printable(one.message)} [{one.code}]")
    for remedy in dict.fromkeys(one.remedy for one in view.errors):
        click.echo(f"remedy: {remedy}", err=True)
    if not view.errors:
        click.echo(f"{len(view.clauses)} clauses, no errors, sha256 {view.sha256}")


def _render_signed(view: SignedPolicy) -> None:
    click.echo(f"{view.name} version {view.version}, sha256 {view.sha256}")
    click.echo(f"signed: {printable(view.document)}")


def _fact_views() -> list[FactView]:
    names: dict[type, str] = {bool: "bool", int: "int", str: "string", tuple: "list(string)"}
    return [
        FactView(
            name=row.name,
            type=names[type(row.worst)],
            meaning=row.meaning,
            worst=row.worst,
            best=row.best,
        )
        for row in FACT_TABLE
    ]


def _render_facts(views: tuple[FactView, ...]) -> None:
    output.table(
        ("fact", "type", "worst", "meaning"),
        (
            (one.name, one.type, msgspec.json.encode(one.worst).decode(), one.meaning)
            for one in views
        ),
    )
