"""``catena os``: build and verify operating system releases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from cryptography import x509

from catena.cli import output
from catena.cli.keys import passphrase_option, read_passphrase
from catena.errors import ExitCode, UsageError
from catena.formats.references import KeySet, ReleaseManifest
from catena.keys import hierarchy
from catena.keys.documents import open_document
from catena.keys.hierarchy import KeyFolder, KeyName
from catena.keys.signer import PublicKey, load_public_key
from catena.osimage import build as building
from catena.osimage import modules, release, rootfs
from catena.osimage.verify import verify_release

_PATH = click.Path(path_type=Path)
_BUILD_EXAMPLE = (
    "catena os build ./edge-1 --keys ./keys --root ./tree --kernel ./boot/vmlinuz-6.1.0-56 "
    "--modules ./lib/modules/6.1.0-56 --name edge --version 1 --security-version 1"
)


class NoVerificationKey(UsageError):
    """A release cannot be verified against nothing, or half of what is needed."""

    code = "no-verification-key"
    remedy = "Give --keys FOLDER, or both --release-key FILE and --db-certificate FILE."


@click.group(cls=output.Noun, name="os")
def noun() -> None:
    """Build, sign and verify operating system releases."""


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED),
    examples=(_BUILD_EXAMPLE,),
)
@click.argument("folder", metavar="FOLDER", type=_PATH)
@click.option("--keys", "keys_folder", required=True, type=_PATH, help="Key folder to sign with.")
@click.option("--root", required=True, type=_PATH, help="Tree of the root file system.")
@click.option("--kernel", required=True, type=_PATH, help="Kernel image (vmlinuz).")
@click.option(
    "--modules",
    "module_folder",
    required=True,
    type=_PATH,
    help="The kernel's lib/modules/VERSION.",
)
@click.option("--name", required=True, help="Release name.")
@click.option("--version", required=True, help="Release version.")
@click.option(
    "--security-version",
    required=True,
    type=click.IntRange(min=0),
    help="Raise it when older releases must not be admitted any more.",
)
@click.option("--revokes", multiple=True, help="NAME-VERSION of a release to revoke (repeat).")
@click.option("--keyset", type=_PATH, help="Key set of `catena keys enroll`: predicts PCR 7, too.")
@click.option(
    "--stub",
    type=_PATH,
    default=building.DEFAULT_STUB,
    show_default=True,
    help="EFI stub of systemd.",
)
@click.option(
    "--command-line",
    default=release.DEFAULT_COMMAND_LINE,
    show_default=True,
    help="Kernel command line; the root hash is added.",
)
@click.option(
    "--module",
    "extra_modules",
    multiple=True,
    help="One more kernel module for the initrd (repeat).",
)
@click.option(
    "--exclude", multiple=True, help="One more pattern to leave out of the tree (repeat)."
)
@click.option("--keep", multiple=True, help="A standard exclusion that is not to apply (repeat).")
@passphrase_option
@output.output_option
def build(
    folder: Path,
    *,
    keys_folder: Path,
    root: Path,
    kernel: Path,
    module_folder: Path,
    name: str,
    version: str,
    security_version: int,
    revokes: tuple[str, ...],
    keyset: Path | None,
    stub: Path,
    command_line: str,
    extra_modules: tuple[str, ...],
    exclude: tuple[str, ...],
    keep: tuple[str, ...],
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Build one signed, atomic OS version into the new folder FOLDER.

    Packs the tree, hashes every block, puts the root hash into the signed kernel image, and
    predicts what a machine will measure. The same inputs give the same bytes.
    """
    keys = hierarchy.open_folder(keys_folder, read_passphrase(passphrase_file))
    recipe = building.Recipe(
        name=name,
        version=version,
        security_version=security_version,
        kernel=kernel,
        modules=module_folder,
        tree=root,
        stub=stub,
        command_line=command_line,
        module_names=(*modules.DEFAULT_MODULES, *extra_modules),
        excludes=_excludes(keep, exclude),
        revokes=revokes,
        keyset=_keyset(keyset, keys),
    )
    output.emit(building.build(recipe, keys, folder), _render, as_json=as_json)


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED),
    examples=(
        "catena os verify ./edge-1.0 --keys ./keys",
        "catena os verify ./edge-1.0 --release-key release.pub --db-certificate db.crt",
    ),
)
@click.argument("folder", metavar="FOLDER", type=_PATH)
@click.option("--keys", "keys_folder", type=_PATH, help="Key folder with the publisher's keys.")
@click.option("--release-key", type=_PATH, help="The publisher's public release key.")
@click.option("--db-certificate", type=_PATH, help="The publisher's db certificate.")
@output.output_option
def verify(
    folder: Path,
    *,
    keys_folder: Path | None,
    release_key: Path | None,
    db_certificate: Path | None,
    as_json: bool,
) -> None:
    """Verify the release in FOLDER: signatures, every digest, every block, every prediction."""
    key, certificate = _publisher(keys_folder, release_key, db_certificate)
    output.emit(verify_release(folder, [key], [certificate]), _render, as_json=as_json)


def _publisher(
    keys_folder: Path | None, release_key: Path | None, db_certificate: Path | None
) -> tuple[PublicKey, x509.Certificate]:
    """The public keys to verify with; single files win over the folder's."""
    keys = None if keys_folder is None else hierarchy.open_folder(keys_folder)
    if release_key is not None:
        key = load_public_key(release_key)
    elif keys is not None:
        key = keys.public_key(KeyName.RELEASE)
    else:
        raise NoVerificationKey("no release key to verify with")
    if db_certificate is not None:
        return key, hierarchy.load_certificate(db_certificate)
    if keys is not None:
        return key, keys.certificate(KeyName.DB)
    raise NoVerificationKey("no db certificate to verify with")


def _excludes(keep: Sequence[str], exclude: Sequence[str]) -> tuple[str, ...]:
    unknown = set(keep) - set(rootfs.DEFAULT_EXCLUDES)
    if unknown:
        raise UsageError(
            "not a standard exclusion",
            expected=", ".join(rootfs.DEFAULT_EXCLUDES),
            got=ascii(min(unknown)[:80]),
        )
    return (*(one for one in rootfs.DEFAULT_EXCLUDES if one not in keep), *exclude)


def _keyset(path: Path | None, keys: KeyFolder) -> KeySet | None:
    """The key set, if it is signed by the key that will sign the release."""
    if path is None:
        return None
    return open_document(release.read_file(path), [keys.public_key(KeyName.RELEASE)], KeySet)


def _render(manifest: ReleaseManifest) -> None:
    rows = (
        ("release", f"{manifest.name} {manifest.version}"),
        ("security version", f"{manifest.security_version}"),
        ("kernel", manifest.kernel),
        ("stub", manifest.uki.stub),
        ("UKI Authenticode", manifest.uki.authenticode["sha256"]),
        ("root hash", manifest.root.root_hash),
        ("disk SHA-256", manifest.disk_sha256),
        *((f"PCR {pcr}", value) for pcr, value in _by_number(manifest.pcrs["sha256"])),
        ("command line", manifest.command_line),
    )
    for label, value in rows:
        click.echo(f"{label:17} {value}")


def _by_number(values: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(values.items(), key=lambda item: int(item[0]))
