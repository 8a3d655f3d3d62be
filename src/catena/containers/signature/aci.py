"""Signed ACIs: the image's format, its name, and an OpenPGP signature by a key for that name.

appc specification 0.8.11, "Image Archives", and rkt's "Signing and verification guide":

1. The detached signature (``.aci.asc``, armored or binary) covers the file as it is distributed. It
   is verified before anything of the file is unpacked.
2. Keys are those of the trust store for the name that was asked for: root keys, then those of
   every folder on the way to the name. ``example.com/app`` stands in ``example.com`` and in itself; whole
   parts of the name count, so nothing of ``example.com/ap`` does.
3. An empty file with a key's fingerprint as its name **masks** that key, from its folder down and for
   all stores read before it.
4. The file is an ACI (``formats.aci``): its manifest names exactly the image that was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from catena.containers.signature import openpgp
from catena.containers.signature.openpgp import UnknownOpenPgpKey
from catena.containers.signature.result import SignatureRefused
from catena.errors import FormatError
from catena.formats import aci
from catena.formats.aci import AciManifest
from catena.ids import ImageDigest

ROOT = ""
"""The prefix of keys that may sign every image."""


class NotAnAci(SignatureRefused):
    """A well signed file that is no ACI, or has more in it than one."""

    code = "aci-malformed"
    remedy = "Do not run the image; have its publisher build it again."
    reached: ClassVar[int] = 10


class WrongAciName(SignatureRefused):
    """A well signed image, of another name than the one that was asked for."""

    code = "aci-other-name"


class MaskedKey(SignatureRefused):
    """A signature by a key that the trust store takes back for this name."""

    code = "aci-key-masked"
    remedy = "Have the image signed with a key that is trusted, or remove the empty file."


class KeyForOtherPrefix(SignatureRefused):
    """A signature by a key that is trusted, but not for this name."""

    code = "aci-key-other-prefix"
    remedy = (
        "Check who signed the image; trust the key for this name only if its owner confirms it."
    )


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key file of a trust store; ``key`` is empty where it masks ``fingerprint``."""

    prefix: str
    fingerprint: str
    key: bytes


@dataclass(frozen=True, slots=True)
class TrustStore:
    """Key files in the order in which they count: a later one overrides an earlier one."""

    files: tuple[TrustedKey, ...]

    def keys_for(self, name: str) -> dict[str, bytes]:
        """Keys by fingerprint that may sign the image ``name``."""
        keys: dict[str, bytes] = {}
        for file in self.files:
            if file.prefix == ROOT or f"{name}/".startswith(f"{file.prefix}/"):
                keys.pop(file.fingerprint, None)
                if file.key:
                    keys[file.fingerprint] = file.key
        return keys

    def masks(self, name: str, fingerprint: str) -> bool:
        """Whether a key would be trusted for ``name`` if no file masked it."""
        plain = TrustStore(tuple(file for file in self.files if file.key))
        return fingerprint in plain.keys_for(name).keys() - self.keys_for(name).keys()


@dataclass(frozen=True, slots=True)
class AciProof:
    """Proven: the owner of the OpenPGP key ``fingerprint`` signed ``image``, whose manifest names ``name``.

    ``signed_at`` is the signer's word.
    """

    image: ImageDigest
    name: str
    version: str
    manifest: AciManifest
    fingerprint: str
    signing_key: str
    signed_at: datetime


def verify(data: bytes, signature: bytes, name: str, store: TrustStore, now: datetime) -> AciProof:
    """Verify the ACI ``data`` as image ``name`` under a trust store.

    Raises ``FormatError``, or a subclass of ``SignatureRefused``.
    """
    keys = store.keys_for(name)  # (2, 3)
    try:
        return verify_with(data, signature, name, tuple(keys.values()), now)
    except UnknownOpenPgpKey:
        signer = _stranger(data, signature, store, now)
        if signer and store.masks(name, signer):
            raise MaskedKey("image is signed by a key that is masked", got=signer) from None
        if signer:
            raise KeyForOtherPrefix(
                "image is signed by a key for other names", expected=name, got=signer
            ) from None
        raise


def verify_with(
    data: bytes, signature: bytes, name: str, keys: Sequence[bytes], now: datetime
) -> AciProof:
    """Verify the ACI ``data`` as image ``name`` under OpenPGP keys.

    Raises ``FormatError``, or a subclass of ``SignatureRefused``.
    """
    proof = prove(data, signature, keys, now)
    if proof.name != name:
        raise WrongAciName("image has another name", expected=name, got=proof.name)
    return proof


def prove(data: bytes, signature: bytes, keys: Sequence[bytes], now: datetime) -> AciProof:
    """Verify the ACI ``data`` under OpenPGP keys, whatever it names itself: the proof says what.

    Raises ``FormatError``, or a subclass of ``SignatureRefused``.
    """
    proof = openpgp.prove_detached(data, signature, keys, now)  # (1)
    try:
        image = aci.parse(data)  # (4)
    except FormatError as error:
        raise NotAnAci(
            f"signed file is no ACI: {error.message}", expected=error.expected, got=error.got
        ) from error
    return AciProof(
        image=image.image_id,
        name=image.manifest.name,
        version=image.manifest.label("version"),
        manifest=image.manifest,
        fingerprint=proof.fingerprint,
        signing_key=proof.signing_key,
        signed_at=proof.signed_at,
    )


def sign(data: bytes, secret_key: bytes, passphrase: str | None = None) -> bytes:
    """An armored detached signature (``.aci.asc``) of an ACI, by an OpenPGP secret key.

    Raises ``FormatError`` for what is no ACI, ``UnusableOpenPgpKey``.
    """
    aci.parse(data)
    return openpgp.sign_detached(data, secret_key, passphrase)


def _stranger(data: bytes, signature: bytes, store: TrustStore, now: datetime) -> str:
    """Which key of the store signed, for whatever name: only for the message."""
    keys = {file.fingerprint: file.key for file in store.files if file.key}
    try:
        return openpgp.verify_detached(data, signature, tuple(keys.values()), now)
    except (SignatureRefused, FormatError):
        return ""
