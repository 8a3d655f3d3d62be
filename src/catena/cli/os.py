"""``catena os``: build and verify operating system releases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from cryptography import x509

from catena.cli import output, prediction_text
from catena.cli.keys import passphrase_option, read_passphrase
from catena.errors import ExitCode, UsageError
from catena.formats.references import KeySet, ReleaseManifest
from catena.formats.varstore import MAX_STORE
from catena.ids import HashAlg
from catena.keys import hierarchy
from catena.keys.documents import open_document
from catena.keys.hierarchy import KeyFolder, KeyName
from catena.keys.signer import PublicKey, load_public_key
from catena.measure.boot_path import Firmware
from catena.measure.prediction import predict as predict_pcrs
from catena.osimage import boot_inputs, modules, release, rootfs
from catena.osimage import build as building
from catena.osimage.boot_inputs import DEFAULT_BOOT_FILE
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


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED),
    examples=(
        "catena os predict --disk disk.img --varstore vars.fd --firmware calibration.log",
        "catena os predict --uki uki.efi --efivars ./efivars --bank sha384 -o json",
    ),
)
@click.option("--disk", type=_PATH, help="Disk image; its ESP says how the boot goes on.")
@click.option(
    "--boot-file", default=DEFAULT_BOOT_FILE, show_default=True, help="What firmware starts."
)
@click.option(
    "--uki", type=_PATH, help="Unified kernel image that firmware starts, without a disk."
)
@click.option("--addon", "addons", multiple=True, type=_PATH, help="Addon of --uki (repeatable).")
@click.option(
    "--credential",
    "credentials",
    multiple=True,
    type=_PATH,
    help="Credential file of --uki (repeatable).",
)
@click.option("--varstore", type=_PATH, help="Variable store of the firmware (OVMF).")
@click.option("--efivars", type=_PATH, help="Copy of /sys/firmware/efi/efivars.")
@click.option(
    "--firmware",
    "capture",
    type=_PATH,
    help="Capture for PCRs 0–3 and 6: a signed capture, or the firmware log of such a machine.",
)
@click.option("--smbios-line", help="OEM string io.systemd.stub.kernel-cmdline-extra of SMBIOS.")
@click.option(
    "--bank",
    "banks",
    multiple=True,
    type=click.Choice([bank.value for bank in HashAlg]),
    default=("sha256",),
    show_default=True,
    help="PCR bank (repeatable).",
)
@output.output_option
def predict(
    *,
    disk: Path | None,
    boot_file: str,
    uki: Path | None,
    addons: tuple[Path, ...],
    credentials: tuple[Path, ...],
    varstore: Path | None,
    efivars: Path | None,
    capture: Path | None,
    smbios_line: str | None,
    banks: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compute PCRs 0 to 15 of a boot that has not happened, from its files alone.

    Where the boot can go several ways, each value is listed with the branch that leads to it. A
    PCR that cannot be predicted is listed with the reason.
    """
    firmware = _firmware(varstore, efivars)
    known = None
    if capture is not None:
        known = boot_inputs.read_capture(capture.name, release.read_file(capture))
    if disk is not None and uki is None:
        inputs = boot_inputs.of_disk(
            disk, firmware, capture=known, boot_file=boot_file, smbios_line=smbios_line
        )
    elif uki is not None and disk is None:
        sidecar = boot_inputs.sidecar_of(
            {one.name: release.read_file(one, boot_inputs.MAX_FILE) for one in addons},
            {one.name: release.read_file(one, boot_inputs.MAX_FILE) for one in credentials},
            smbios_line,
        )
        inputs = boot_inputs.of_image(
            release.read_file(uki, boot_inputs.MAX_FILE), firmware, capture=known, sidecar=sidecar
        )
    else:
        raise boot_inputs.NothingToBoot("give either a disk or an image")
    prediction = predict_pcrs(inputs, [HashAlg(bank) for bank in banks])
    output.emit(prediction_text.view(prediction), prediction_text.render, as_json=as_json)


def _firmware(varstore: Path | None, efivars: Path | None) -> Firmware:
    """Secure Boot from a store or a dump, whichever was given."""
    if varstore is not None and efivars is None:
        return boot_inputs.firmware_of_store(release.read_file(varstore, MAX_STORE + 1))
    if efivars is not None and varstore is None:
        return boot_inputs.firmware_of_dump(efivars)
    raise UsageError("give either --varstore or --efivars")


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
