"""``catena keys``: make enterprise keys and put them into firmware."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from cryptography import x509

from catena.cli import output
from catena.errors import ExitCode, UsageError
from catena.formats.dsse import Subject
from catena.formats.references import KeySet
from catena.keys import hierarchy, varstore
from catena.keys.documents import seal_document
from catena.keys.hierarchy import KeyFolder, KeyName
from catena.keys.signer import KeyExists, key_id_of, write_new

KEYSET_FILE = "keyset.dsse.json"
_MAX_PASSPHRASE = 1024


class ShownKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key as ``keys show`` lists it; ``expires`` and ``subject`` only with a certificate."""

    name: str
    algorithm: str
    key_id: str
    private_key: bool
    subject: str | None = None
    expires: datetime | None = None


class ShownFolder(msgspec.Struct, frozen=True, kw_only=True):
    """A whole key folder."""

    folder: str
    owner: str
    keys: tuple[ShownKey, ...]


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """What ``keys enroll`` wrote."""

    varstore: str
    keyset: str
    name: str
    version: str
    certificates: dict[str, tuple[str, ...]]
    pcrs: dict[str, dict[str, str]]


class UnreadablePassphrase(UsageError):
    """A passphrase file that cannot be used."""

    code = "unreadable-passphrase"
    remedy = "Give a file whose first line is the passphrase."


passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    help="File whose first line encrypts the private keys.",
)


@click.group(cls=output.Noun, name="keys")
def noun() -> None:
    """Make enterprise keys and put them into firmware."""


@noun.command(examples=("catena keys init ./keys --organisation 'Example Ltd'",))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--organisation", default="catena", show_default=True, help="Name in certificates.")
@passphrase_option
@output.output_option
def init(folder: Path, organisation: str, passphrase_file: Path | None, *, as_json: bool) -> None:
    """Make all keys of an enterprise in the new folder FOLDER.

    PK, KEK and db for firmware, a release key, a cluster CA and a log key. Keep the folder
    offline: only the CA and log keys go to a server.
    """
    made = hierarchy.init(
        folder,
        organisation=organisation,
        now=datetime.now(UTC),
        passphrase=read_passphrase(passphrase_file),
    )
    output.emit(_shown(made), _render, as_json=as_json)


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED),
    examples=("catena keys show ./keys", "catena keys show ./keys -o json"),
)
@click.argument("folder", type=click.Path(path_type=Path))
@output.output_option
def show(folder: Path, *, as_json: bool) -> None:
    """List the keys in FOLDER by their public halves."""
    output.emit(_shown(hierarchy.open_folder(folder)), _render, as_json=as_json)


@noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.UNTRUSTED, ExitCode.MALFORMED),
    examples=("catena keys enroll ./keys --varstore node1.fd",),
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--varstore",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    help="Variable store to write; its key set reference is written beside it.",
)
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    default=varstore.DEFAULT_TEMPLATE,
    show_default=True,
    help="Variable store to start from.",
)
@passphrase_option
@output.output_option
def enroll(
    folder: Path, target: Path, template: Path, passphrase_file: Path | None, *, as_json: bool
) -> None:
    """Put PK, KEK and db of FOLDER into a firmware variable store, with Secure Boot on.

    Beside it goes keyset.dsse.json, signed by the release key: what this firmware will measure
    into PCR 7, for `catena os build --keyset` and `catena reference import`.
    """
    keys = hierarchy.open_folder(folder, read_passphrase(passphrase_file))
    signer = keys.signer(KeyName.RELEASE)
    reference = target.with_name(KEYSET_FILE)
    if reference.exists():
        raise KeyExists(f"{KEYSET_FILE} exists already", got=str(reference))
    keyset = varstore.enroll(keys, template, target)
    subject = Subject(name=keyset.name, digest={"sha256": keyset.pcrs["sha256"]["7"]})
    write_new(reference, seal_document(keyset, [subject], signer), mode=0o644)
    output.emit(_enrolment(keyset, target, reference), _render_enrolment, as_json=as_json)


def read_passphrase(path: Path | None) -> bytes | None:
    """The first line of a passphrase file. Raises ``UnreadablePassphrase``."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            line = file.readline(_MAX_PASSPHRASE)
    except OSError as error:
        raise UnreadablePassphrase(f"cannot read {path.name}: {error.strerror}") from error
    passphrase = line.rstrip(b"\r\n")
    if not passphrase:
        raise UnreadablePassphrase(f"{path.name} has no first line")
    return passphrase


def _shown(folder: KeyFolder) -> ShownFolder:
    return ShownFolder(
        folder=str(folder.path),
        owner=str(folder.owner),
        keys=tuple(_shown_key(folder, name) for name in KeyName),
    )


def _shown_key(folder: KeyFolder, name: KeyName) -> ShownKey:
    certificate: x509.Certificate | None = None
    if name.has_certificate:
        certificate = folder.certificate(name)
    return ShownKey(
        name=name.value,
        algorithm=name.algorithm.value,
        key_id=key_id_of(folder.public_key(name)),
        private_key=(folder.path / f"{name}.key").is_file(),
        subject=certificate.subject.rfc4514_string() if certificate else None,
        expires=certificate.not_valid_after_utc if certificate else None,
    )


def _render(shown: ShownFolder) -> None:
    rows = [
        (
            key.name,
            key.algorithm,
            key.key_id[:16],
            "yes" if key.private_key else "no",
            key.expires.date().isoformat() if key.expires else "-",
            key.subject or "-",
        )
        for key in shown.keys
    ]
    output.table(("key", "kind", "id", "private", "expires", "subject"), rows)
    click.echo(f"owner GUID: {shown.owner}")


def _enrolment(keyset: KeySet, target: Path, reference: Path) -> Enrolment:
    return Enrolment(
        varstore=str(target),
        keyset=str(reference),
        name=keyset.name,
        version=keyset.version,
        certificates=keyset.certificates,
        pcrs=keyset.pcrs,
    )


def _render_enrolment(made: Enrolment) -> None:
    rows = [(name, "; ".join(subjects)) for name, subjects in made.certificates.items()]
    output.table(("variable", "enrolled"), rows)
    click.echo(f"PCR 7 (sha256): {made.pcrs['sha256']['7']}")
    click.echo(f"wrote {made.varstore} and {made.keyset}")
