"""``catena container policy``: whose images may run, and how they may be started.

`check` and `sign` are about container policies; `generate` and `dry-run` about the launch policies
of images, which `catena container sign --launch-policy` signs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from catena.cli import output
from catena.cli.connection import printable
from catena.cli.container_access import access_options
from catena.cli.keys import passphrase_option, read_passphrase
from catena.containers.launch.dryrun import DryRun
from catena.containers.record import DEFAULT_RECORD
from catena.errors import ExitCode
from catena.formats.launchpolicy import LaunchPolicy
from catena.ids import ImageDigest

if TYPE_CHECKING:
    from catena.containers.images.opening import Access

IMAGES = Path("/var/lib/catena/images")
_FILE = click.Path(path_type=Path, dir_okay=False)


_layout = click.option(
    "--layout",
    type=click.Path(path_type=Path, file_okay=False),
    default=IMAGES,
    show_default=True,
    help="OCI image layout that has the images.",
)


class PolicyNotes(msgspec.Struct, frozen=True, kw_only=True):
    """A container policy that compiles; ``notes`` say what it allows that may not be meant."""

    name: str
    version: int
    sha256: str
    publishers: int
    scopes: int
    notes: tuple[str, ...]
    document: str = ""


class ImportedScope(msgspec.Struct, frozen=True, kw_only=True):
    """Whose signatures count for a repository, in which formats."""

    repository: str
    publishers: tuple[str, ...]
    formats: tuple[str, ...]


class ImportedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What foreign trust became, and what `policy check` says of it."""

    scopes: tuple[ImportedScope, ...]
    notes: PolicyNotes


@click.group(cls=output.Noun, name="policy")
def noun() -> None:
    """Say whose images may run, and how they may be started."""


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


@noun.command(
    name="import",
    exits=(ExitCode.NOT_FOUND, ExitCode.POLICY, ExitCode.MALFORMED),
    examples=(
        "catena container policy import images-policy /etc/containers/policy.json --to containers.json",
        "catena container policy import notation trustpolicy.json --to containers.json",
        "catena container policy import rkt /usr/lib/rkt/trustedkeys /etc/rkt/trustedkeys --to containers.json",
    ),
)
@click.argument("kind", type=click.Choice(("images-policy", "notation", "rkt")))
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--trust-store",
    type=click.Path(path_type=Path, file_okay=False),
    help="Notation's certificates.  [default: truststore, beside the file]",
)
@click.option("--name", help="What to call the policy.  [default: after KIND]")
@click.option("--version", type=click.IntRange(1), default=1, show_default=True)
@click.option("--to", "target", required=True, type=_FILE, help="Policy to write; must not exist.")
@output.output_option
def import_policy(
    *,
    kind: str,
    paths: tuple[Path, ...],
    trust_store: Path | None,
    name: str | None,
    version: int,
    target: Path,
    as_json: bool,
) -> None:
    """Make a container policy of what another tool was told to trust.

    KIND images-policy is a policy.json of containers/image (skopeo, podman, CRI-O), notation a
    trust policy document, rkt the folders of a trust store, the system's first. What a container
    policy cannot say as narrowly is refused. The result is a draft: read it, then `check` and
    `sign` it.
    """
    from catena.containers.signature import imported
    from catena.containers.signature.policy import compile_policy
    from catena.keys.signer import write_new

    if len(paths) > 1 and kind != imported.Kind.RKT:
        raise click.UsageError("Only rkt has several trust stores.")
    match imported.Kind(kind):
        case imported.Kind.IMAGES_POLICY:
            policy = imported.read_images_policy(paths[0])
        case imported.Kind.NOTATION:
            policy = imported.read_notation(paths[0], trust_store or paths[0].parent / "truststore")
        case imported.Kind.RKT:
            policy = imported.read_rkt(*paths)
    policy = msgspec.structs.replace(policy, name=name or policy.name, version=version)
    compile_policy(policy)
    text = msgspec.json.format(msgspec.json.encode(policy), indent=2)
    write_new(target, text, mode=0o644)
    view = ImportedPolicy(
        notes=_notes(target),
        scopes=tuple(
            ImportedScope(repository=one.repository, publishers=one.publishers, formats=one.formats)
            for one in policy.scopes
        ),
    )
    output.emit(view, _render_imported, as_json=as_json)


def _render_imported(view: ImportedPolicy) -> None:
    output.table(
        ("repository", "publishers", "formats"),
        (
            (one.repository, ", ".join(one.publishers), ", ".join(one.formats))
            for one in view.scopes
        ),
    )
    _render_notes(view.notes)


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED),
    examples=(
        "catena container policy generate registry.example/web:1.2 > web.json",
        "catena container policy generate oci:./web:1.2 --repository registry.example/web",
    ),
)
@click.argument("image")
@click.option("--name", help="What to call the policy.  [default: IMAGE]")
@click.option("--version", type=click.IntRange(1), default=1, show_default=True)
@access_options
@output.output_option
def generate(
    *,
    image: str,
    name: str | None,
    version: int,
    access: Access,
    repository: str | None,
    as_json: bool,
) -> None:
    """Write a launch policy to start from: what IMAGE's own configuration says.

    The policy allows the image's command, variables, user, folder and volumes, and what every
    engine adds. Read it, narrow it, and sign it with `catena container sign --launch-policy`.
    """
    from catena.containers.images.opening import opened
    from catena.containers.launch.generate import generate as policy_for
    from catena.containers.launch.image import image_config_of
    from catena.formats import imageconfig

    with opened(image, access, repository) as found:
        config = image_config_of(found.store.blobs, found.store.resolve(found.name))
    policy = policy_for(imageconfig.parse(config), name or image, version)
    output.emit(policy, _render_policy, as_json=as_json)


@noun.command(
    name="dry-run",
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.POLICY, ExitCode.MALFORMED),
    examples=(
        "catena container policy dry-run --policy web.json",
        "catena container policy dry-run record-1.cel record-2.cel --image sha256:5f70… -o json",
    ),
)
@click.argument("records", nargs=-1, type=_FILE)
@click.option("--policy", "file", type=_FILE, help="Launch policy to try.  [default: shipped]")
@click.option("--image", default="", help="Only launches of this image (its digest).")
@_layout
@output.output_option
def dry_run(
    *, records: tuple[Path, ...], file: Path | None, image: str, layout: Path, as_json: bool
) -> int:
    """Say which recorded launches a policy would have refused, and why.

    RECORDS are container records; without any, this node's own. Nothing is changed. Exit code 10
    says that something would have been refused.
    """
    from catena.containers.images.folder import BlobFolder
    from catena.containers.launch import document, dryrun
    from catena.containers.launch.image import image_config_of
    from catena.containers.launch.rules import compile_launch
    from catena.containers.record.file import read_events

    tried = (
        document.default_policy()
        if file is None
        else document.read_launch_policy(_read(file, document.MAX_POLICY))
    )
    events = [
        recorded.event
        for record in records or (DEFAULT_RECORD,)
        for recorded in read_events(record)
    ]
    blobs = BlobFolder(layout / "blobs")
    images = dryrun.images_of(lambda digest: image_config_of(blobs, ImageDigest(digest)))
    result = dryrun.dry_run(events, compile_launch(tried), images, image)
    output.emit(result, _render_dry_run, as_json=as_json)
    return ExitCode.UNTRUSTED if result.findings else ExitCode.OK


def _read(file: Path, limit: int) -> bytes:
    with file.open("rb") as source:
        return source.read(limit + 1)


def _render_policy(written: LaunchPolicy) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(written), indent=2).decode())


def _render_dry_run(result: DryRun) -> None:
    for one in result.findings:
        click.echo(f"{one.at.isoformat()} {one.verb} {printable(one.container)}")
        click.echo(f"  {printable(one.reason)} [{one.code}]")
    for other in result.not_checkable:
        click.echo(f"not checkable: {printable(other.container)}: {printable(other.what)}")
    click.echo(f"not recorded: {', '.join(result.not_recorded)}")
    click.echo(f"{result.refused} of {result.launches} launches would be refused")
