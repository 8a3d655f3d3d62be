"""The signed attributes of notation signatures, from JWS and COSE headers and back.

Notary Project, "Signature specification" and "JWS"/"COSE" envelopes:

========================================  ===========  =====================================
header                                    critical     here
========================================  ===========  =====================================
``alg``                                   –            must be the one of the signer's key
``cty``                                   –            the payload's media type
``io.cncf.notary.signingScheme``          must be      ``notary.x509`` or ``….signingAuthority``
``io.cncf.notary.signingTime``            –            x509: the *signer's word*
``io.cncf.notary.authenticSigningTime``   must be      signing authority: the authority's word
``io.cncf.notary.expiry``                 must be      refused from then on
``io.cncf.notary.verificationPlugin…``    must be      refused: there are no plugins
========================================  ===========  =====================================

Every critical header must be known and present; other signed headers are passed over. JWS has
times as RFC 3339 texts, COSE as tag 1 around seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from catena.containers.signature.result import SignatureRefused
from catena.errors import FormatError
from catena.formats import cbor, cose, ijson
from catena.formats.cbor import Tag, Value
from catena.formats.notation import PAYLOAD_TYPE

_SCHEME = "io.cncf.notary.signingScheme"
_SIGNING_TIME = "io.cncf.notary.signingTime"
_AUTHENTIC_TIME = "io.cncf.notary.authenticSigningTime"
_EXPIRY = "io.cncf.notary.expiry"
_PLUGIN = "io.cncf.notary.verificationPlugin"
_KNOWN = (_SCHEME, _AUTHENTIC_TIME, _EXPIRY)
_EPOCH = 1
_LAST_SECOND = 253402300799
"""The end of the year 9999: what a datetime can hold."""
_COSE_ALGORITHMS = {"ES256": -7, "ES384": -35, "ES512": -36, "PS256": -37, "PS384": -38, "PS512": -39}  # fmt: skip
_BY_COSE = {number: name for name, number in _COSE_ALGORITHMS.items()}

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class UnknownCriticalHeader(SignatureRefused):
    """A signature that must not be accepted without understanding a header that is unknown here."""

    code = "notation-unknown-critical-header"
    remedy = "Have the publisher sign without extensions; verification plugins do not exist here."
    reached: ClassVar[int] = 3


class WrongAttributes(SignatureRefused):
    """Signed attributes that contradict the specification or each other."""

    code = "notation-attributes"
    remedy = "Have the publisher sign the image again, with `notation` or `catena container sign`."
    reached: ClassVar[int] = 3


class SigningScheme(StrEnum):
    """Who says when the signature was made: its signer, or an authority that signs for others."""

    X509 = "notary.x509"
    AUTHORITY = "notary.x509.signingAuthority"


@dataclass(frozen=True, slots=True)
class SignedAttributes:
    """What the headers say beside the payload. ``algorithm`` is JWS's name of it."""

    algorithm: str
    scheme: SigningScheme
    signing_time: datetime
    expiry: datetime | None


@dataclass(frozen=True, slots=True)
class _Headers:
    """Protected headers in one shape: of times those that are there."""

    algorithm: str
    content_type: object
    critical: tuple[str, ...]
    scheme: object
    names: frozenset[str]
    times: Mapping[str, datetime]


class _Jose(msgspec.Struct, frozen=True):
    alg: str
    crit: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    cty: str = ""
    scheme: str = msgspec.field(name=_SCHEME, default="")
    signing_time: _Time | None = msgspec.field(name=_SIGNING_TIME, default=None)
    authentic_time: _Time | None = msgspec.field(name=_AUTHENTIC_TIME, default=None)
    expiry: _Time | None = msgspec.field(name=_EXPIRY, default=None)


def from_jws(protected: bytes) -> SignedAttributes:
    """Read a JWS protected header. Raises ``FormatError``, ``UnknownCriticalHeader``, ``WrongAttributes``."""
    jose = ijson.decode(protected, _Jose, what="JWS protected header")
    names = ijson.decode(protected, dict[str, msgspec.Raw], what="JWS protected header")
    times = {
        _SIGNING_TIME: jose.signing_time,
        _AUTHENTIC_TIME: jose.authentic_time,
        _EXPIRY: jose.expiry,
    }
    return _attributes(
        _Headers(
            algorithm=jose.alg,
            content_type=jose.cty,
            critical=jose.crit,
            scheme=jose.scheme,
            names=frozenset(names),
            times={name: time.astimezone(UTC) for name, time in times.items() if time is not None},
        )
    )


def from_cose(headers: cose.Headers) -> SignedAttributes:
    """Read COSE protected headers. Raises ``FormatError``, ``UnknownCriticalHeader``, ``WrongAttributes``."""
    algorithm, critical = headers.get(cose.ALG), headers.get(cose.CRIT, ())
    if not isinstance(algorithm, int) or not isinstance(critical, tuple):
        raise FormatError("COSE headers have no algorithm or no list of critical headers")
    if unknown := [one for one in critical if not isinstance(one, str)]:
        raise UnknownCriticalHeader("critical COSE header is not known", got=ascii(unknown[0])[:80])
    times = (_SIGNING_TIME, _AUTHENTIC_TIME, _EXPIRY)
    return _attributes(
        _Headers(
            algorithm=_BY_COSE.get(algorithm, f"COSE {algorithm}"),
            content_type=headers.get(cose.CONTENT_TYPE),
            critical=tuple(map(str, critical)),
            scheme=headers.get(_SCHEME),
            names=frozenset(one for one in headers if isinstance(one, str)),
            times={name: _moment(headers[name], name) for name in times if name in headers},
        )
    )


def to_jws(attributes: SignedAttributes) -> bytes:
    """The attributes as a JWS protected header."""
    times = {name: f"{time:%Y-%m-%dT%H:%M:%SZ}" for name, time in _times(attributes).items()}
    header = {
        "alg": attributes.algorithm,
        "crit": _critical(attributes),
        "cty": PAYLOAD_TYPE,
        _SCHEME: attributes.scheme.value,
        **times,
    }
    return msgspec.json.encode(header)


def to_cose(attributes: SignedAttributes) -> bytes:
    """The attributes as encoded COSE protected headers."""
    headers: cose.Headers = {
        cose.ALG: _COSE_ALGORITHMS[attributes.algorithm],
        cose.CRIT: _critical(attributes),
        cose.CONTENT_TYPE: PAYLOAD_TYPE,
        _SCHEME: attributes.scheme.value,
    }
    for name, time in _times(attributes).items():
        headers[name] = Tag(_EPOCH, int(time.timestamp()))
    return cbor.encode(headers)


def _attributes(headers: _Headers) -> SignedAttributes:
    _check_critical(headers)
    if headers.content_type != PAYLOAD_TYPE:
        raise WrongAttributes(
            "signature is over another kind of content",
            expected=PAYLOAD_TYPE,
            got=ascii(headers.content_type)[:120],
        )
    if headers.scheme not in set(SigningScheme):
        raise WrongAttributes(
            "signing scheme is not known",
            expected=" or ".join(SigningScheme),
            got=ascii(headers.scheme)[:80],
        )
    scheme = SigningScheme(str(headers.scheme))
    own, other = _SIGNING_TIME, _AUTHENTIC_TIME
    if scheme is SigningScheme.AUTHORITY:
        own, other = other, own
    if own not in headers.times or other in headers.names:
        raise WrongAttributes(
            f"signing time does not fit the scheme {scheme}", expected=f"{own} alone"
        )
    expiry = headers.times.get(_EXPIRY)
    return SignedAttributes(headers.algorithm, scheme, headers.times[own], expiry)


def _check_critical(headers: _Headers) -> None:
    """Critical headers are known, present and named once; those that must be critical are."""
    critical = set(headers.critical)
    plugins = {name for name in headers.names if name.startswith(_PLUGIN)}
    if unknown := sorted((critical - set(_KNOWN)) | plugins):
        raise UnknownCriticalHeader("critical header is not known", got=ascii(unknown[0][:80]))
    if len(critical) != len(headers.critical) or not critical <= headers.names:
        raise WrongAttributes("critical headers are absent, or named twice")
    if loose := sorted((set(_KNOWN) & headers.names) - critical):
        raise WrongAttributes("header has to be critical", got=loose[0])


def _moment(value: Value, name: str) -> datetime:
    match value:
        case Tag(number=1, value=int() as seconds) if 0 <= seconds <= _LAST_SECOND:
            return datetime.fromtimestamp(seconds, UTC)
        case _:
            raise FormatError(f"COSE header {name} is not a time", expected="tag 1 and seconds")


def _critical(attributes: SignedAttributes) -> tuple[str, ...]:
    return (_SCHEME, *(name for name in _times(attributes) if name in _KNOWN))


def _times(attributes: SignedAttributes) -> dict[str, datetime]:
    authority = attributes.scheme is SigningScheme.AUTHORITY
    times = {_AUTHENTIC_TIME if authority else _SIGNING_TIME: attributes.signing_time.astimezone(UTC)}  # fmt: skip
    if attributes.expiry is not None:
        times[_EXPIRY] = attributes.expiry.astimezone(UTC)
    return times
