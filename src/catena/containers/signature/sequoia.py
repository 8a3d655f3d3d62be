"""Sequoia, behind ``openpgp``: the one module that loads it (package ``pysequoia``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pysequoia import Cert, Sig, SignatureMode, Tsk, sign, verify
from pysequoia.packet import HashAlgorithm, PacketPile, SignatureType
from pysequoia.packet import Packet as KeyPacket

from catena.containers.signature.openpgp import (
    ExpiredOpenPgpSignature,
    ForgedOpenPgpSignature,
    OpenPgpKeyExpired,
    OpenPgpKeyRevoked,
    OpenPgpProof,
    UnknownOpenPgpKey,
    UnusableOpenPgpKey,
    WeakOpenPgpSignature,
)
from catena.errors import FormatError
from catena.formats import openpgp
from catena.formats.openpgp import SECRET_KEY, SECRET_SUBKEY, Packet

MAX_KEYS = 256
MAX_SKEW = timedelta(minutes=5)
_STRONG = (HashAlgorithm.SHA256, HashAlgorithm.SHA384, HashAlgorithm.SHA512)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Stated:
    """What a signature says of itself. Without a time it is made at no time, which has not come."""

    weak: bool
    created: datetime
    expires: datetime | None
    issuers: tuple[str, ...]


def read_keys(keys: Sequence[bytes]) -> dict[str, Cert]:
    """Public keys by fingerprint, from key files: armored or binary, one or many in each.

    Raises ``UnusableOpenPgpKey`` for what is no key, is a secret one, or can sign nothing.
    """
    found: dict[str, Cert] = {}
    for key in keys:
        packets = openpgp.dearmor(key, openpgp.KEY_ARMOR)
        if any(one.tag in {SECRET_KEY, SECRET_SUBKEY} for one in openpgp.parse(packets)):
            raise UnusableOpenPgpKey("OpenPGP key file holds secret keys")
        try:
            certificates = Cert.split_bytes(packets)
            for one in certificates:
                _ = one.expiration  # raises if no self-signature holds
        except (RuntimeError, ValueError) as error:
            raise UnusableOpenPgpKey(f"not a usable OpenPGP key: {_words(error)}") from error
        if not certificates:
            raise UnusableOpenPgpKey("OpenPGP key file is empty")
        found.update((one.fingerprint, one) for one in certificates)
    if len(found) > MAX_KEYS:
        raise UnusableOpenPgpKey("too many OpenPGP keys", expected=f"{MAX_KEYS}", got=f"{len(found)}")  # fmt: skip
    return found


def prove(
    packet: Packet,
    data: bytes,
    certificates: dict[str, Cert],
    now: datetime,
    *,
    inline: bool = False,
) -> tuple[bytes, OpenPgpProof]:
    """Hold one signature over ``data``, or the message ``data`` that it stands in (``inline``).

    Steps 2 to 4 of ``openpgp``; what was signed, and the proof.
    """
    signature, stated = _read(packet)
    _check_signature(stated, now)  # (2)
    certificate = _claimed(stated, certificates)  # (3)
    _check_key(certificate, now)  # (4)
    try:
        verified = verify(
            bytes=data,
            store=lambda _: [certificate],
            signature=None if inline else signature,
        )
    except RuntimeError as error:
        for issuer in stated.issuers:
            _check_revoked(certificate, issuer)
        raise ForgedOpenPgpSignature(
            f"OpenPGP signature does not hold: {_words(error)}", expected=certificate.fingerprint
        ) from error
    signing_key = _signing_key(verified.valid_sigs, certificate)
    _check_revoked(certificate, signing_key)
    _check_subkey(certificate, signing_key, now)
    return verified.bytes or b"", OpenPgpProof(certificate.fingerprint, signing_key, stated.created)


def sign_detached(data: bytes, secret_key: bytes, passphrase: str | None) -> bytes:
    """``openpgp.sign_detached``."""
    try:
        signer = Tsk.from_bytes(secret_key).signer(passphrase)
        return sign(signer, data, mode=SignatureMode.DETACHED)
    except (RuntimeError, ValueError) as error:
        raise UnusableOpenPgpKey(f"OpenPGP key cannot sign: {_words(error)}") from None


def _read(packet: Packet) -> tuple[Sig, _Stated]:
    """A signature and what it says: the library refuses some of that only when asked for it."""
    try:
        signature = Sig.from_bytes(packet.raw)
        created = signature.created
        stated = _Stated(
            weak=signature.hash_algorithm not in _STRONG
            or signature.signature_type != SignatureType.Binary,
            created=created.astimezone(UTC) if created else _NEVER,
            expires=signature.expiration,
            issuers=tuple(
                one for one in (signature.issuer_fingerprint, signature.issuer_key_id) if one
            ),
        )
    except (RuntimeError, ValueError, OverflowError) as error:
        raise FormatError(f"OpenPGP signature cannot be read: {_words(error)}") from error
    return signature, stated


def _check_signature(stated: _Stated, now: datetime) -> None:
    if stated.weak:
        raise WeakOpenPgpSignature(
            "OpenPGP signature is weak", expected="a binary signature over SHA-2"
        )
    expired = stated.expires is not None and stated.expires <= now
    if expired or stated.created > now + MAX_SKEW:
        raise ExpiredOpenPgpSignature(
            "OpenPGP signature is not valid now",
            expected=f"made before {now:%Y-%m-%dT%H:%MZ}, not expired",
            got=f"made {stated.created}, expires {stated.expires or 'never'}",
        )


def _claimed(stated: _Stated, certificates: dict[str, Cert]) -> Cert:
    """The given key that the signature says it is by."""
    names = set(stated.issuers)
    for certificate in certificates.values():
        for packet in _key_packets(certificate):
            if {packet.fingerprint, packet.key_id} & names:
                return certificate
    raise UnknownOpenPgpKey(
        "OpenPGP signature is by another key",
        expected=", ".join(sorted(certificates))[:200] or "a key",
        got=", ".join(sorted(names))[:80] or "no name",
    )


def _check_key(certificate: Cert, now: datetime) -> None:
    if certificate.is_revoked:
        raise OpenPgpKeyRevoked("OpenPGP key is revoked", got=certificate.fingerprint)
    expires = certificate.expiration
    if expires is not None and expires <= now:
        raise OpenPgpKeyExpired(
            f"OpenPGP key {certificate.fingerprint} has expired",
            expected=f"before {expires:%Y-%m-%dT%H:%MZ}",
            got=f"{now:%Y-%m-%dT%H:%MZ}",
        )


def _signing_key(valid: list[object], certificate: Cert) -> str:
    """The key that made the one valid signature."""
    found = {(getattr(one, "certificate", ""), getattr(one, "signing_key", "")) for one in valid}
    if len(found) != 1 or (names := found.pop())[0] != certificate.fingerprint:
        raise ForgedOpenPgpSignature("OpenPGP signature is by another key than it claims")
    return str(names[1])


def _check_revoked(certificate: Cert, key: str) -> None:
    """Refuse a subkey with a revocation, whenever and why ever it was revoked."""
    for packet in _bindings(certificate, key):
        if packet.signature_type == SignatureType.SubkeyRevocation:
            raise OpenPgpKeyRevoked("OpenPGP subkey is revoked", got=key)


def _check_subkey(certificate: Cert, key: str, now: datetime) -> None:
    """Refuse a subkey that its newest binding lets expire before ``now``."""
    bindings = [
        (packet.signature_created, packet.key_validity_period)
        for packet in _bindings(certificate, key)
        if packet.signature_type == SignatureType.SubkeyBinding and packet.signature_created
    ]
    if not bindings:
        return  # the primary key, which ``_check_key`` has judged
    created = next(one.key_created for one in _key_packets(certificate) if one.fingerprint == key)
    _, validity = max(bindings, key=lambda one: one[0] or datetime.min.replace(tzinfo=UTC))
    if created is not None and validity and created + validity <= now:
        raise OpenPgpKeyExpired("OpenPGP subkey has expired", got=key)


def _key_packets(certificate: Cert) -> list[KeyPacket]:
    return [one for one in _packets(certificate) if one.fingerprint]


def _bindings(certificate: Cert, key: str) -> list[KeyPacket]:
    """The signatures behind the subkey with this fingerprint or key ID; none for the primary key."""
    found: list[KeyPacket] = []
    current, primary = False, True
    for packet in _packets(certificate):
        if packet.fingerprint:
            current = not primary and key in {packet.fingerprint, packet.key_id}
            primary = False
        elif current and packet.signature_type is not None:
            found.append(packet)
    return found


def _packets(certificate: Cert) -> list[KeyPacket]:
    return list(PacketPile.from_bytes(bytes(certificate)))


def _words(error: Exception) -> str:
    """The first line of what the library says: behind it stands where in the library it was."""
    return ascii(str(error).partition("\n")[0][:120])[1:-1]
