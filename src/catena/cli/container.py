"""``catena container``: whose images may run, and how."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from catena.cli import output
from catena.cli.connection import printable
from catena.cli.container_access import access_options
from catena.cli.container_install import install, uninstall
from catena.cli.container_list import list_containers
from catena.cli.container_policy import noun as policy_noun
from catena.cli.keys import passphrase_option, read_passphrase
from catena.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from catena.containers.images.copy import FetchedImage
    from catena.containers.images.opening import Access
    from catena.containers.signature.result import VerifiedImage

STORE = Path("/var/lib/catena/images")
FORMATS = ("cosign", "cosign-bundle", "notation-jws", "notation-cose")

_FILE = click.Path(path_type=Path, dir_okay=False)
_EXITS = (ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED)


class BadAnnotation(UsageError):
    """An annotation that is not NAME=VALUE."""

    code = "bad-annotation"
    remedy = "Give it as --annotation NAME=VALUE."


class PlainAci(UsageError):
    """Something that the signature of an ACI has no place for."""

    code = "aci-signature-plain"
    remedy = "Leave out --annotation, --launch-policy and --certificates."


class SignatureView(msgspec.Struct, frozen=True, kw_only=True):
    """What was signed; ``key`` is the SHA-256 of the key's SPKI."""

    image: str
    repository: str
    format: str
    key: str
    annotations: dict[str, str]
    launch_policy: str


@click.group(cls=output.Noun, name="container")
def noun() -> None:
    """Sign and verify images, say whose may run and how, guard their starts, show what ran."""


for verb in (policy_noun, install, uninstall, list_containers):
    noun.add_command(verb)


@noun.command(
    exits=_EXITS,
    examples=(
        "catena container sign registry.example.com/team/app:1.4 --key team.key",
        "catena container sign oci:./app:1.4 --repository registry.example.com/team/app --key team.key",
        "catena container sign registry.example.com/team/app:1.4 --format notation-cose --key team.key --certificates team.pem",
        "catena container sign aci:app.aci --key team.openpgp",
    ),
)
@click.argument("image")
@click.option(
    "--key", required=True, type=_FILE, help="Private key (PEM; OpenPGP for ACIs), mode 0600."
)
@click.option("--certificates", type=_FILE, help="Chain to the root (PEM), for notation.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="How to sign. Those of cosign name the repository.",
)
@click.option("--annotation", "annotations", multiple=True, metavar="NAME=VALUE", help="Signed.")
@click.option("--launch-policy", "launch", type=_FILE, help="Launch policy (JSON) to attach.")
@passphrase_option
@access_options
@output.output_option
def sign(
    *,
    image: str,
    key: Path,
    certificates: Path | None,
    kind: str,
    annotations: tuple[str, ...],
    launch: Path | None,
    passphrase_file: Path | None,
    access: Access,
    repository: str | None,
    as_json: bool,
) -> None:
    """Sign IMAGE, and store the signature beside it.

    IMAGE is in a registry, in an OCI layout (oci:FOLDER:NAME), or an ACI (aci:FILE).
    """
    from catena.containers.images.opening import ACI, opened
    from catena.containers.launch.document import read_launch_policy
    from catena.containers.signature import sign as signing
    from catena.containers.signature.result import SignatureFormat
    from catena.containers.signature.x509 import pem_certificates
    from catena.keys.signer import load_signer

    if image.startswith(ACI):
        if annotations or launch or certificates:
            raise PlainAci("an ACI's signature carries nothing but itself")
        view = _sign_aci(Path(image.removeprefix(ACI)), key, read_passphrase(passphrase_file))
        output.emit(view, _render_fields, as_json=as_json)
        return
    signer = load_signer(key, read_passphrase(passphrase_file))
    chain = pem_certificates(certificates.read_text("utf-8", "replace")) if certificates else ()
    notes = _annotations(annotations)
    policy = read_launch_policy(launch.read_bytes()) if launch else None
    with opened(image, access, repository) as found:
        target = signing.target_of(found.store, found.name, found.repository)
        signed = signing.sign_image(
            target,
            signer,
            SignatureFormat(kind),
            annotations=notes,
            now=datetime.now(UTC),
            chain=chain,
        )
        if policy is not None:
            signing.attach_launch_policy(target, policy, signer)
    view = SignatureView(
        image=signed.image,
        repository=signed.repository,
        format=signed.format,
        key=signed.key,
        annotations=dict(signed.annotations),
        launch_policy=policy.name if policy else "",
    )
    output.emit(view, _render_fields, as_json=as_json)


@noun.command(
    exits=(*_EXITS, ExitCode.POLICY),
    examples=(
        "catena container verify registry.example.com/team/app:1.4 --policy containers.toml",
        "catena container verify aci:app.aci --policy containers.toml",
        "catena container verify oci:/var/lib/catena/images:registry.example.com/team/app:1.4 --policy policy.dsse.json --policy-key release.pub -o json",
    ),
)
@click.argument("image")
@click.option("--policy", "file", required=True, type=_FILE, help="Container policy.")
@click.option("--policy-key", type=_FILE, help="Public key that must have signed the policy.")
@access_options
@output.output_option
def verify(
    *,
    image: str,
    file: Path,
    policy_key: Path | None,
    access: Access,
    repository: str | None,
    as_json: bool,
) -> None:
    """Verify that IMAGE may run under a policy, and say who signed exactly what."""
    from catena.containers.images.opening import opened_source
    from catena.containers.signature.policyfile import load_policy
    from catena.containers.signature.verify import verify_image
    from catena.keys.signer import load_public_key

    policy = load_policy(file, [load_public_key(policy_key)] if policy_key else [])
    with opened_source(image, access, repository) as found:
        digest = found.store.resolve(found.name)
        verified = verify_image(found.store, digest, found.reference, policy, datetime.now(UTC))
    output.emit(verified, _render_verified, as_json=as_json)


@noun.command(
    exits=_EXITS,
    examples=("catena container fetch registry.example.com/team/app:1.4",),
)
@click.argument("image")
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=STORE,
    show_default=True,
    help="Image store (an OCI layout) to copy into.",
)
@access_options
@output.output_option
def fetch(
    *, image: str, store: Path, access: Access, repository: str | None, as_json: bool
) -> None:
    """Copy IMAGE with its layers, signatures and launch policies into a node's image store.

    Nothing is decided: the gate verifies what runs, each time.
    """
    from catena.containers.images.copy import fetch as copy_image
    from catena.containers.images.layout import Layout
    from catena.containers.images.opening import opened

    with opened(image, access, repository) as found:
        name = (
            found.reference
            if found.tag
            else f"{found.repository}@{found.store.resolve(found.name)}"
        )
        fetched = copy_image(found.store, found.name, Layout.create(store), name)
    output.emit(fetched, _render_fetched, as_json=as_json)


def _sign_aci(path: Path, key: Path, passphrase: bytes | None) -> SignatureView:
    """Write the signature beside the ACI; it must not be there yet."""
    from catena.containers.images.acifile import AciFile, signature_of
    from catena.containers.signature import aci, openpgp
    from catena.keys.signer import read_private, write_new

    file = AciFile(path)
    secret = read_private(key)
    signature = aci.sign(file.content, secret, None if passphrase is None else passphrase.decode())
    write_new(signature_of(path), signature, mode=0o644)
    return SignatureView(
        image=file.image,
        repository=file.name,
        format="aci",
        key=openpgp.secret_fingerprint(secret),
        annotations={},
        launch_policy="",
    )


def _annotations(words: tuple[str, ...]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    if any(not name or not equals for name, equals, _ in pairs):
        raise BadAnnotation("annotation is not NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _render_fields(view: Any) -> None:  # noqa: ANN401 - any struct, field by field
    for name, value in msgspec.to_builtins(view).items():
        shown = (
            ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        click.echo(f"{name.replace('_', ' '):<18} {printable(str(shown)) or '-'}")


def _render_verified(verified: VerifiedImage) -> None:
    _render_fields(verified)


def _render_fetched(fetched: FetchedImage) -> None:
    _render_fields(fetched)
