"""``catena container policy``: write launch policies, sign them, and try them on what ran."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from catena.cli import output
from catena.cli.connection import printable
from catena.cli.keys import passphrase_option, read_passphrase
from catena.containers.launch.dryrun import DryRun
from catena.errors import ExitCode
from catena.formats.launchpolicy import LaunchPolicy

IMAGES = Path("/var/lib/catena/images")
RECORD = Path("/var/lib/catena/containers.cel")
MAX_RECORD = 4 * 1024 * 1024

_FILE = click.Path(path_type=Path, dir_okay=False)


class SignedLaunchPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope that was written."""

    name: str
    version: int
    image: str
    sha256: str
    document: str


_layout = click.option(
    "--layout",
    type=click.Path(path_type=Path, file_okay=False),
    default=IMAGES,
    show_default=True,
    help="OCI image layout that has the image.",
)


@click.group(cls=output.Noun, name="policy")
def policy() -> None:
    """Say how containers of an image may be started."""


@policy.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED),
    examples=(
        "catena container policy generate registry.example/web:1.2 > web.json",
        "catena container policy generate web:1.2 --layout ./web",
    ),
)
@click.argument("image")
@_layout
@click.option("--name", help="What to call the policy.  [default: IMAGE]")
@click.option("--version", type=click.IntRange(1), default=1, show_default=True)
@output.output_option
def generate(*, image: str, layout: Path, name: str | None, version: int, as_json: bool) -> None:
    """Write a launch policy to start from: what IMAGE's own configuration says.

    The policy allows the image's command, variables, user, folder and volumes, and what every
    engine adds. Read it, narrow it, and sign it.
    """
    from catena.containers.launch.generate import generate as policy_for
    from catena.formats import imageconfig

    config = imageconfig.parse(_config(layout, image))
    output.emit(policy_for(config, name or image, version), _render_policy, as_json=as_json)


@policy.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.POLICY, ExitCode.MALFORMED),
    examples=("catena container policy sign web.json web:1.2 --key web.key --to web.dsse.json",),
)
@click.argument("file", type=_FILE)
@click.argument("image")
@_layout
@click.option("--key", required=True, type=_FILE, help="The publisher's private key (PEM).")
@click.option("--to", "target", required=True, type=_FILE, help="File to write; must not exist.")
@passphrase_option
@output.output_option
def sign(
    *,
    file: Path,
    image: str,
    layout: Path,
    key: Path,
    target: Path,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Sign the launch policy in FILE for IMAGE. A policy that cannot be applied is not signed."""
    from catena.containers.launch import document
    from catena.containers.launch.image import LayoutFolder
    from catena.keys.signer import load_signer, write_new

    digest = LayoutFolder(layout).resolve(image)
    written = document.read_launch_policy(_read(file, document.MAX_POLICY))
    signer = load_signer(key, read_passphrase(passphrase_file))
    write_new(target, document.seal_launch_policy(signer, written, [digest]), mode=0o644)
    view = SignedLaunchPolicy(
        name=written.name,
        version=written.version,
        image=digest,
        sha256=document.digest_of(written),
        document=str(target),
    )
    output.emit(view, _render_signed, as_json=as_json)


@policy.command(
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
    from catena.containers.launch import document, dryrun
    from catena.containers.launch.rules import compile_launch

    tried = (
        document.default_policy()
        if file is None
        else document.read_launch_policy(_read(file, document.MAX_POLICY))
    )
    events = [
        event
        for record in records or (RECORD,)
        for event in dryrun.read_record(_read(record, MAX_RECORD))
    ]
    images = dryrun.images_of(lambda digest: _config(layout, digest))
    result = dryrun.dry_run(events, compile_launch(tried), images, image)
    output.emit(result, _render_dry_run, as_json=as_json)
    return ExitCode.UNTRUSTED if result.findings else ExitCode.OK


def _config(layout: Path, image: str) -> bytes:
    from catena.containers.launch.image import LayoutFolder, image_config_of

    source = LayoutFolder(layout)
    return image_config_of(source, source.resolve(image))


def _read(file: Path, limit: int) -> bytes:
    with file.open("rb") as source:
        return source.read(limit + 1)


def _render_policy(written: LaunchPolicy) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(written), indent=2).decode())


def _render_signed(view: SignedLaunchPolicy) -> None:
    click.echo(f"{printable(view.name)} {view.version} for {view.image}")
    click.echo(f"sha256  {view.sha256}")
    click.echo(f"wrote   {printable(view.document)}")


def _render_dry_run(result: DryRun) -> None:
    for one in result.findings:
        click.echo(f"{one.at.isoformat()} {one.verb} {printable(one.container)}")
        click.echo(f"  {printable(one.reason)} [{one.code}]")
    for other in result.not_checkable:
        click.echo(f"not checkable: {printable(other.container)}: {printable(other.what)}")
    click.echo(f"not recorded: {', '.join(result.not_recorded)}")
    click.echo(f"{result.refused} of {result.launches} launches would be refused")
