"""``catena container policy``: check and sign the policy that says whose images may run."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from catena.cli import output
from catena.cli.connection import printable
from catena.cli.keys import passphrase_option, read_passphrase
from catena.errors import ExitCode

_FILE = click.Path(path_type=Path, dir_okay=False)


class PolicyNotes(msgspec.Struct, frozen=True, kw_only=True):
    """A container policy that compiles; ``notes`` say what it allows that may not be meant."""

    name: str
    version: int
    sha256: str
    publishers: int
    scopes: int
    notes: tuple[str, ...]
    document: str = ""


@click.group(cls=output.Noun, name="policy")
def noun() -> None:
    """Container policies: whose images may run."""


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.POLICY),
    examples=("catena container policy check containers.toml",),
)
@click.argument("file", type=_FILE)
@output.output_option
def check(*, file: Path, as_json: bool) -> None:
    """Check the container policy in FILE (JSON or TOML), and say what it allows beyond the obvious."""
    output.emit(_notes(file), _render_notes, as_json=as_json)


@noun.command(
    name="sign",
    exits=(ExitCode.NOT_FOUND, ExitCode.POLICY, ExitCode.MALFORMED),
    examples=("catena container policy sign containers.toml --keys ./keys --to policy.dsse.json",),
)
@click.argument("file", type=_FILE)
@click.option(
    "--keys", "folder", required=True, type=click.Path(path_type=Path), help="Key folder."
)
@click.option(
    "--to", "target", required=True, type=_FILE, help="Signed policy to write; must not exist."
)
@passphrase_option
@output.output_option
def sign_policy(
    *, file: Path, folder: Path, target: Path, passphrase_file: Path | None, as_json: bool
) -> None:
    """Sign the container policy in FILE with the release key. What `check` refuses is not signed."""
    from catena.containers.signature.policyfile import load_policy, seal_policy
    from catena.keys import hierarchy
    from catena.keys.signer import write_new

    signer = hierarchy.open_folder(folder, read_passphrase(passphrase_file)).signer(
        hierarchy.KeyName.RELEASE
    )
    write_new(target, seal_policy(load_policy(file), signer), mode=0o644)
    view = msgspec.structs.replace(_notes(file), document=str(target))
    output.emit(view, _render_notes, as_json=as_json)


def _notes(file: Path) -> PolicyNotes:
    from catena.containers.signature.policy import notes_on
    from catena.containers.signature.policyfile import load_policy

    policy = load_policy(file)
    return PolicyNotes(
        name=policy.document.name,
        version=policy.document.version,
        sha256=policy.digest,
        publishers=len(policy.publishers),
        scopes=len(policy.scopes),
        notes=tuple(notes_on(policy)),
    )


def _render_notes(view: PolicyNotes) -> None:
    click.echo(
        f"{view.name} version {view.version}: {view.publishers} publishers, {view.scopes} scopes, "
        f"sha256 {view.sha256}"
    )
    for note in view.notes:
        click.echo(f"note: {printable(note)}")
    if view.document:
        click.echo(f"signed: {printable(view.document)}")
