"""Sequoia, behind ``openpgp``: the one module that loads it (package ``pysequoia``)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
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
_EVER, _NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Stated:
    """What a signature says of itself. Without a time it is made at no time, which has not come."""

    weak: bool
    created: datetime
    expires: datetime | None
    issuers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A primary key or subkey: its names, and what its own signatures say of it."""

    fingerprint: str
    key_id: str
    revoked: bool
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class Key:
    """A public key as the library holds it; ``parts`` begin with the primary key."""

    certificate: Cert
    parts: tuple[_Part, ...]

    @property
    def fingerprint(self) -> str:
        """Of the primary key: what a policy names."""
        return self.parts[0].fingerprint

    def part(self, names: Container[str]) -> _Part | None:
        """The part with a fingerprint or key ID among ``names``."""
        found = (one for one in self.parts if one.fingerprint in names or one.key_id in names)
        return next(found, None)


def read_keys(keys: Sequence[bytes]) -> dict[str, Key]:
    """Public keys by fingerprint, from key files: armored or binary, one or many in each.

    Raises ``UnusableOpenPgpKey`` for what is no key, is a secret one, or can sign nothing.
    """
    found = {key.fingerprint: key for data in keys for key in _keys_of(data)}
    if len(found) > MAX_KEYS:
        raise UnusableOpenPgpKey(
            "too many OpenPGP keys", expected=f"{MAX_KEYS}", got=f"{len(found)}"
        )
    return found


def _keys_of(data: bytes) -> list[Key]:
    packets = openpgp.dearmor(data, openpgp.KEY_ARMOR)
    if any(one.tag in {SECRET_KEY, SECRET_SUBKEY} for one in openpgp.parse(packets)):
        raise UnusableOpenPgpKey("OpenPGP key file holds secret keys")
    try:
        found = [Key(one, _parts(one)) for one in Cert.split_bytes(packets)]
    except (RuntimeError, ValueError, OverflowError) as error:
        raise UnusableOpenPgpKey(f"not a usable OpenPGP key: {_words(error)}") from error
    if not found:
        raise UnusableOpenPgpKey("OpenPGP key file is empty")
    return found


def _parts(certificate: Cert) -> tuple[_Part, ...]:
    """The primary key and its subkeys. Fails where no self-signature of the key holds."""
    groups: list[list[KeyPacket]] = []
    for packet in PacketPile.from_bytes(bytes(certificate)):
        if packet.fingerprint:
            groups.append([])
        groups[-1].append(packet)
    primary = _Part(
        fingerprint=certificate.fingerprint,
        key_id=groups[0][0].key_id or "",
        revoked=certificate.is_revoked,
        expires=certificate.expiration,
    )
    return (primary, *(_subkey(group) for group in groups[1:]))


def _subkey(group: Sequence[KeyPacket]) -> _Part:
    """A subkey and the signatures behind it: the newest binding counts, and any revocation."""
    key, *signatures = group
    kinds = [(one.signature_type, one) for one in signatures]
    bindings = [one for kind, one in kinds if kind == SignatureType.SubkeyBinding]
    newest = max(bindings, key=lambda one: one.signature_created or _EVER, default=None)
    validity = newest.key_validity_period if newest else None
    return _Part(
        fingerprint=key.fingerprint or "",
        key_id=key.key_id or "",
        revoked=any(kind == SignatureType.SubkeyRevocation for kind, _ in kinds),
        expires=key.key_created + validity if key.key_created and validity else None,
    )


def prove(
    packet: Packet, data: bytes, keys: Mapping[str, Key], now: datetime, *, inline: bool = False
) -> tuple[bytes, OpenPgpProof]:
    """Hold one signature over ``data``, or the message ``data`` that it stands in (``inline``).

    Steps 2 to 4 of ``openpgp``; what was signed, and the proof.
    """
    signature, stated = _read(packet)
    _check_signature(stated, now)  # (2)
    key, part = _claimed(stated, keys)  # (3)
    _check_part(key.parts[0], now)  # (4)
    _check_part(part, now)
    try:
        verified = verify(
            bytes=data,
            store=lambda _: [key.certificate],
            signature=None if inline else signature,
        )
    except RuntimeError as error:
        raise ForgedOpenPgpSignature(
            f"OpenPGP signature does not hold: {_words(error)}", expected=key.fingerprint
        ) from error
    signers = {(one.certificate, one.signing_key) for one in verified.valid_sigs}
    if signers != {(key.fingerprint, part.fingerprint)}:
        raise ForgedOpenPgpSignature("OpenPGP signature is by another key than it claims")
    return verified.bytes or b"", OpenPgpProof(key.fingerprint, part.fingerprint, stated.created)


def sign_detached(data: bytes, secret_key: bytes, passphrase: str | None) -> bytes:
    """``openpgp.sign_detached``."""
    try:
        signer = Tsk.from_bytes(secret_key).signer(passphrase)
        return sign(signer, data, mode=SignatureMode.DETACHED)
    except (RuntimeError, ValueError) as error:
        raise UnusableOpenPgpKey(f"OpenPGP key cannot sign: {_words(error)}") from None


def secret_fingerprint(secret_key: bytes) -> str:
    """``openpgp.secret_fingerprint``."""
    try:
        return str(Tsk.from_bytes(secret_key).extract_certificate().fingerprint)
    except (RuntimeError, ValueError) as error:
        raise UnusableOpenPgpKey(f"not an OpenPGP secret key: {_words(error)}") from None


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


def _claimed(stated: _Stated, keys: Mapping[str, Key]) -> tuple[Key, _Part]:
    """The given key that the signature says it is by, and the part of it."""
    for key in keys.values():
        part = key.part(stated.issuers)
        if part is not None:
            return key, part
    raise UnknownOpenPgpKey(
        "OpenPGP signature is by another key",
        expected=", ".join(sorted(keys))[:200] or "a key",
        got=", ".join(stated.issuers)[:80] or "no name",
    )


def _check_part(part: _Part, now: datetime) -> None:
    """Refuse what is revoked, whenever and why ever it was, and what has expired."""
    if part.revoked:
        raise OpenPgpKeyRevoked("OpenPGP key is revoked", got=part.fingerprint)
    if part.expires is not None and part.expires <= now:
        raise OpenPgpKeyExpired(
            f"OpenPGP key {part.fingerprint} has expired",
            expected=f"before {part.expires:%Y-%m-%dT%H:%MZ}",
            got=f"{now:%Y-%m-%dT%H:%MZ}",
        )


def _words(error: Exception) -> str:
    """The first line of what the library says: behind it stands where in the library it was."""
    return ascii(str(error).partition("\n")[0][:120])[1:-1]
