"""OpenPGP signatures (RFC 9580), verified by Sequoia under keys that are given.

Sequoia checks the signature, the binding of the subkey that made it, its flags, revocations and
the strength of every algorithm (no SHA-1), at the time of this machine. It takes no other time,
so what is left is checked here at ``now`` as well; nothing counts that fails either:

1. Only signatures and messages of the expected packets reach the library (``formats.openpgp``).
2. A signature is a binary one over SHA-2, made before ``now`` and not expired.
3. The key that made it is one of those given, whatever the signature claims: the claim only picks
   the key that is tried.
4. Neither key nor subkey is expired *today*: a key that has run out signs nothing any more, also
   not in the past, because its holder chooses the date of a signature. A revoked one neither.

The library is loaded when it is first needed: nodes without OpenPGP publishers never load it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import ModuleType
from typing import ClassVar

from catena.containers.signature.result import SignatureRefused
from catena.errors import FormatError, Unavailable
from catena.formats import openpgp
from catena.formats.openpgp import LITERAL, ONE_PASS, SIGNATURE

MAX_SIGNATURES = 8
_MESSAGES = ((ONE_PASS, LITERAL, SIGNATURE), (SIGNATURE, LITERAL))


class OpenPgpUnavailable(Unavailable):
    """The library that verifies OpenPGP is not installed."""

    code = "openpgp-unavailable"
    remedy = "Install it: `pip install 'catena[openpgp]'`, or remove OpenPGP keys from the policy."


class UnusableOpenPgpKey(FormatError):
    """A file that holds no OpenPGP public keys, or one that can sign nothing."""

    code = "openpgp-key-unusable"
    remedy = "Export the publisher's public key again, with current self-signatures."


class OpenPgpRefused(SignatureRefused):
    """An OpenPGP signature that is not accepted. Subclasses say why."""

    code = "openpgp-refused"
    reached: ClassVar[int] = 8


class UnknownOpenPgpKey(OpenPgpRefused):
    """A signature by none of the keys that may sign."""

    code = "openpgp-key-unknown"
    remedy = "Check who signed the image; trust the key only if the publisher confirms it."


class ForgedOpenPgpSignature(OpenPgpRefused):
    """A signature that does not hold under the key it names."""

    code = "openpgp-signature-forged"
    reached: ClassVar[int] = 9


class WeakOpenPgpSignature(OpenPgpRefused):
    """A signature over a broken hash, or of another type than over a file's bytes."""

    code = "openpgp-signature-weak"
    remedy = "Have the publisher sign again with SHA-256 or better."


class ExpiredOpenPgpSignature(OpenPgpRefused):
    """A signature whose time has passed, or has not come."""

    code = "openpgp-signature-expired"
    remedy = "Have the publisher sign again."


class OpenPgpKeyExpired(OpenPgpRefused):
    """A signature by a key that has expired since."""

    code = "openpgp-key-expired"
    remedy = "Obtain the publisher's extended key, or have the image signed with the new one."


class OpenPgpKeyRevoked(OpenPgpRefused):
    """A signature by a key that its owner has revoked."""

    code = "openpgp-key-revoked"
    remedy = "Remove the key from every policy; have the image signed with the new one."


@dataclass(frozen=True, slots=True)
class OpenPgpProof:
    """Proven: the owner of the key ``fingerprint`` signed, with ``signing_key`` (a subkey of it, or
    itself). ``signed_at`` is the signer's word.
    """

    fingerprint: str
    signing_key: str
    signed_at: datetime


def verify_detached(data: bytes, signature: bytes, keys: Sequence[bytes], now: datetime) -> str:
    """The fingerprint of the key that signed ``data``. Raises as ``prove_detached``."""
    return prove_detached(data, signature, keys, now).fingerprint


def verify_inline(message: bytes, keys: Sequence[bytes], now: datetime) -> tuple[bytes, str]:
    """What is in a signed message, and the fingerprint of the key. Raises as ``prove_inline``."""
    content, proof = prove_inline(message, keys, now)
    return content, proof.fingerprint


def prove_detached(
    data: bytes, signature: bytes, keys: Sequence[bytes], now: datetime
) -> OpenPgpProof:
    """Verify a detached signature, armored or binary; of several, one has to hold.

    Raises ``FormatError``, ``UnusableOpenPgpKey``, or a subclass of ``OpenPgpRefused``: of several
    signatures, the error of the first by a known key.
    """
    packets = openpgp.parse(openpgp.dearmor(signature, openpgp.SIGNATURE_ARMOR))  # (1)
    if not 1 <= len(packets) <= MAX_SIGNATURES or {one.tag for one in packets} != {SIGNATURE}:
        raise FormatError("not a detached OpenPGP signature", expected="signatures only")
    certificates = _sequoia().read_keys(keys)
    refusals: list[OpenPgpRefused] = []
    for packet in packets:
        try:
            proof: OpenPgpProof = _sequoia().prove(packet, data, certificates, now)[1]
        except OpenPgpRefused as refused:
            refusals.append(refused)
        else:
            return proof
    raise next((one for one in refusals if not isinstance(one, UnknownOpenPgpKey)), refusals[0])


def prove_inline(
    message: bytes, keys: Sequence[bytes], now: datetime
) -> tuple[bytes, OpenPgpProof]:
    """Verify a message with exactly one signature, compressed or not.

    Raises ``FormatError``, ``UnusableOpenPgpKey``, or a subclass of ``OpenPgpRefused``.
    """
    packets = openpgp.parse(openpgp.dearmor(message, openpgp.MESSAGE_ARMOR))  # (1)
    if len(packets) == 1 and packets[0].tag == openpgp.COMPRESSED:
        packets = openpgp.inflate(packets[0])
    if tuple(one.tag for one in packets) not in _MESSAGES:
        raise FormatError("not an OpenPGP message with one signature")
    signature = next(one for one in packets if one.tag == SIGNATURE)
    plain = b"".join(one.raw for one in packets)
    library = _sequoia()
    content, proof = library.prove(signature, plain, library.read_keys(keys), now, inline=True)
    return content, proof


def fingerprints(keys: Sequence[bytes]) -> tuple[str, ...]:
    """The fingerprints of the public keys in key files. Raises ``UnusableOpenPgpKey``."""
    return tuple(_sequoia().read_keys(keys))


def secret_fingerprint(secret_key: bytes) -> str:
    """The fingerprint of a secret key's public half. Raises ``UnusableOpenPgpKey``."""
    fingerprint: str = _sequoia().secret_fingerprint(secret_key)
    return fingerprint


def sign_detached(data: bytes, secret_key: bytes, passphrase: str | None = None) -> bytes:
    """An armored detached signature over ``data``. Raises ``UnusableOpenPgpKey``."""
    signature: bytes = _sequoia().sign_detached(data, secret_key, passphrase)
    return signature


def _sequoia() -> ModuleType:
    """The module that loads the library."""
    try:
        from catena.containers.signature import sequoia  # noqa: PLC0415  only where it is needed
    except ImportError as error:
        raise OpenPgpUnavailable("OpenPGP signatures cannot be verified here") from error
    return sequoia
