"""The enterprise's keys as one folder: made once, kept offline, opened lazily.

=============  ===========  ========================  ====================================
name           kind         files                     signs
=============  ===========  ========================  ====================================
``PK``         rsa-2048     ``PK.key PK.crt``         firmware: the KEK
``KEK``        rsa-2048     ``KEK.key KEK.crt``       firmware: db and dbx
``db``         rsa-2048     ``db.key db.crt``         boot code (UKIs)
``release``    ed25519      ``release.key .pub``      release manifests, key sets (DSSE)
``ca``         ecdsa-p256   ``ca.key ca.crt``         node and server certificates
``log``        ed25519      ``log.key log.pub``       transparency log entries, checkpoints
=============  ===========  ========================  ====================================

``owner.guid`` is the SignatureOwner that firmware shows beside each certificate. The folder
appears complete or not at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from catena.errors import NotFound
from catena.formats.certificate import CERTIFICATE_FAULTS
from catena.keys import authority
from catena.keys.signer import (
    KeyAlgorithm,
    KeyExists,
    KeyUnwritable,
    PrivateKeySigner,
    PublicKey,
    UnusableKey,
    generate_key,
    load_public_key,
    load_signer,
    parse_public_key,
    public_pem,
    write_key,
    write_new,
)

MAX_CERTIFICATE_FILE = 64 * 1024


class KeyName(StrEnum):
    """The keys of the hierarchy, by file name."""

    PK = "PK"
    KEK = "KEK"
    DB = "db"
    RELEASE = "release"
    CA = "ca"
    LOG = "log"

    @property
    def algorithm(self) -> KeyAlgorithm:
        """The kind of key this name holds."""
        if self in FIRMWARE_KEYS:
            return KeyAlgorithm.RSA_2048
        return KeyAlgorithm.ECDSA_P256 if self is KeyName.CA else KeyAlgorithm.ED25519

    @property
    def has_certificate(self) -> bool:
        """Whether the public half is a certificate (``.crt``) or a bare key (``.pub``)."""
        return self in FIRMWARE_KEYS or self is KeyName.CA


FIRMWARE_KEYS = (KeyName.PK, KeyName.KEK, KeyName.DB)
_OWNER_FILE = "owner.guid"


class NoKeyFolder(NotFound):
    """A path that is not a key folder."""

    code = "no-key-folder"
    remedy = "Make one with `catena keys init`."


class WrongKeyKind(UnusableKey):
    """A key file that holds another kind of key than its name promises."""

    code = "wrong-key-kind"
    remedy = "Put the right key back under this name; the table of `catena keys show` lists kinds."


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """A key folder. Nothing is read before it is asked for; the passphrase is never shown."""

    path: Path
    passphrase: bytes | None = field(default=None, repr=False)

    @property
    def owner(self) -> uuid.UUID:
        """The SignatureOwner GUID of this enterprise."""
        try:
            return uuid.UUID((self.path / _OWNER_FILE).read_text().strip())
        except (OSError, ValueError) as error:
            raise NoKeyFolder(f"{self.path.name} has no readable {_OWNER_FILE}") from error

    def signer(self, name: KeyName) -> PrivateKeySigner:
        """Open a private key."""
        signer = load_signer(self.path / f"{name}.key", self.passphrase)
        if signer.algorithm is not name.algorithm:
            raise WrongKeyKind(
                f"{name}.key is of another kind", expected=name.algorithm, got=signer.algorithm
            )
        return signer

    def certificate(self, name: KeyName) -> x509.Certificate:
        """The certificate of PK, KEK, db or ca."""
        return load_certificate(self.path / f"{name}.crt")

    def public_key(self, name: KeyName) -> PublicKey:
        """The public half of any key, without opening the private one."""
        if not name.has_certificate:
            return load_public_key(self.path / f"{name}.pub")
        key = self.certificate(name).public_key()
        pem = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return parse_public_key(pem)


def init(
    folder: Path,
    *,
    organisation: str,
    now: datetime,
    passphrase: bytes | None = None,
    owner: uuid.UUID | None = None,
) -> KeyFolder:
    """Make all keys and certificates of an enterprise in a new folder.

    ``owner`` is drawn at random unless given. Raises ``KeyExists`` or ``KeyUnwritable``.
    """
    if os.path.lexists(folder):
        raise KeyExists("the key folder exists already", got=str(folder))
    try:
        room = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise KeyUnwritable(f"cannot make {folder}: {error.strerror}") from error
    try:
        for name in KeyName:
            _make(room, name, organisation, now, passphrase)
        owner_text = f"{owner or uuid.uuid4()}\n"
        write_new(room / _OWNER_FILE, owner_text.encode(), mode=0o644)
        room.rename(folder)
    except OSError as error:
        raise KeyUnwritable(f"cannot make {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return KeyFolder(folder, passphrase)


def open_folder(path: Path, passphrase: bytes | None = None) -> KeyFolder:
    """An existing key folder. Raises ``NoKeyFolder``."""
    if not (path / _OWNER_FILE).is_file():
        raise NoKeyFolder("not a key folder", got=str(path))
    return KeyFolder(path, passphrase)


def load_certificate(path: Path) -> x509.Certificate:
    """Read one PEM certificate. Raises ``NoKeyFolder`` or ``UnusableKey``."""
    try:
        with path.open("rb") as file:
            pem = file.read(MAX_CERTIFICATE_FILE)
    except OSError as error:
        raise NoKeyFolder(f"cannot read certificate {path.name}", got=str(path)) from error
    try:
        return x509.load_pem_x509_certificate(pem)
    except CERTIFICATE_FAULTS as error:
        raise UnusableKey(f"{path.name} is not a PEM certificate") from error


def _make(
    room: Path, name: KeyName, organisation: str, now: datetime, passphrase: bytes | None
) -> None:
    key = generate_key(name.algorithm)
    signer = PrivateKeySigner(key)
    write_key(room / f"{name}.key", key, passphrase)
    if not name.has_certificate:
        write_new(room / f"{name}.pub", public_pem(signer.public_key), mode=0o644)
        return
    if name is KeyName.CA:
        certificate = authority.issue_cluster_ca(signer, organisation=organisation, now=now)
    else:
        certificate = authority.issue_firmware_root(
            signer, name=name, organisation=organisation, now=now
        )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    write_new(room / f"{name}.crt", pem, mode=0o644)
