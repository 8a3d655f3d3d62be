"""Notation's trusted identities: which subjects may sign.

Notary Project, "Trust store and trust policy", section "Trusted identities constraints": ``*``, or
``x509.subject: C=US, ST=WA, O=Example``, a distinguished name of at least country, state and
organisation. A certificate matches if its subject has every attribute of the name with the same
value; the order does not matter, and no type may stand twice on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from catena.containers.signature.result import SignatureRefused
from catena.errors import FormatError

ANY = "*"
PREFIX = "x509.subject:"
MAX_NAME = 1024
_REQUIRED = frozenset({NameOID.COUNTRY_NAME, NameOID.STATE_OR_PROVINCE_NAME, NameOID.ORGANIZATION_NAME})  # fmt: skip
_TYPES: dict[str, ObjectIdentifier] = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "S": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
    "STREET": NameOID.STREET_ADDRESS,
    "POSTALCODE": NameOID.POSTAL_CODE,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
    "DC": NameOID.DOMAIN_COMPONENT,
    "UID": NameOID.USER_ID,
}

Attributes = dict[ObjectIdentifier, str]


class MalformedIdentity(FormatError):
    """A trusted identity that is none."""

    code = "malformed-identity"
    remedy = "Write it as `x509.subject: C=…, ST=…, O=…`, or `*`."


class WrongIdentity(SignatureRefused):
    """A certificate under a trusted root, of somebody else."""

    code = "wrong-identity"
    remedy = "Check who signed the image; only the policy's identities may."
    reached: ClassVar[int] = 6


def match_identity(subject: x509.Name, identities: Sequence[str]) -> str:
    """The first of ``identities`` that ``subject`` has. Raises ``WrongIdentity``, ``MalformedIdentity``."""
    if ANY in identities:
        return ANY
    attributes = _attributes_of(subject)
    for identity in identities:
        wanted = parse_identity(identity)
        if attributes is not None and wanted.items() <= attributes.items():
            return identity
    raise WrongIdentity(
        "signer's subject is not a trusted identity",
        expected="; ".join(identities)[:200],
        got=ascii(subject.rfc4514_string()[:200]),
    )


def parse_identity(identity: str) -> Attributes:
    """The attributes that an identity asks for. Raises ``MalformedIdentity``."""
    if not identity.startswith(PREFIX) or len(identity) > MAX_NAME:
        raise MalformedIdentity("not a trusted identity", got=ascii(identity[:80]))
    attributes: Attributes = {}
    for part in _split(identity.removeprefix(PREFIX)):
        name, equals, value = part.partition("=")
        oid = _TYPES.get(name.strip().upper())
        if not equals or oid is None or oid in attributes or not _unescaped(value):
            raise MalformedIdentity("trusted identity has a bad attribute", got=ascii(part[:80]))
        attributes[oid] = _unescaped(value)
    if missing := _REQUIRED - attributes.keys():
        raise MalformedIdentity(
            "trusted identity is too wide", expected="C, ST and O", got=f"{len(missing)} missing"
        )
    return attributes


def _attributes_of(subject: x509.Name) -> Attributes | None:
    """The subject's attributes by type, or None where one stands twice."""
    attributes: Attributes = {}
    for one in subject:
        if one.oid in attributes or not isinstance(one.value, str):
            return None
        attributes[one.oid] = one.value
    return attributes


def _split(text: str) -> list[str]:
    """The parts between commas that no backslash precedes (RFC 4514, section 3)."""
    parts = [""]
    escaped = False
    for letter in text:
        if letter == "," and not escaped:
            parts.append("")
        else:
            parts[-1] += letter
        escaped = letter == "\\" and not escaped
    return parts


def _unescaped(value: str) -> str:
    """The value without the spaces around it and the backslashes before special characters."""
    text, escaped = "", False
    for letter in value.strip():
        if letter == "\\" and not escaped:
            escaped = True
        elif letter == "+" and not escaped:
            return ""  # several values in one part: notation has none
        else:
            text, escaped = text + letter, False
    return text
