"""A private or secret key on a PKCS #11 token: it is used there and never leaves.

============  =========================================  =======================
key           mechanism (PKCS #11 3.1, section 6)        what ``sign`` makes of it
============  =========================================  =======================
RSA-2048      CKM_SHA256_RSA_PKCS                        as it is
P-256         CKM_ECDSA over SHA-256, r and s            DER
Ed25519       CKM_EDDSA                                  as it is
============  =========================================  =======================

An AES-256 key encrypts and decrypts with CKM_AES_GCM (section 6.13.3), a few bytes at a time.

Nothing is loaded before a key is opened. The PIN is read from a file that only its owner may touch, handed to the
module, and kept nowhere. The token's public key object gives the public half.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from catena.errors import NotFound, Unavailable, UsageError
from catena.formats import pkcs11uri
from catena.formats.pkcs11uri import Pkcs11Uri
from catena.keys.signer import (
    KeyAlgorithm,
    PublicKey,
    UnusableKey,
    algorithm_of,
    key_id_of,
    read_private,
    verify_signature,
)

if TYPE_CHECKING:
    from pkcs11 import Session, Token

_COORDINATE = 32
_AES_256 = 32
_PROBE = b"catena: do the two halves belong together?"


class Pkcs11Missing(Unavailable):
    """The library that speaks PKCS #11 is not installed."""

    code = "pkcs11-not-installed"
    remedy = "Install catena with the extra `pkcs11`."


class ModuleUnusable(Unavailable):
    """A PKCS #11 module that cannot be loaded or used."""

    code = "pkcs11-module-unusable"
    remedy = (
        "Check `module-path`, that this user may use the module, and the module's own settings."
    )


class TokenMissing(NotFound):
    """No token, or more than one, is what the URI names."""

    code = "pkcs11-token-missing"
    remedy = "Plug it in, or correct `token` and `serial`; the module's own tool lists tokens."


class WrongPin(UsageError):
    """A PIN that the token does not take."""

    code = "pkcs11-wrong-pin"
    remedy = "Correct the file that `pin-source` names before trying again: tokens lock themselves."


class TokenKeyMissing(NotFound):
    """No key on the token, or more than one, is what the URI names."""

    code = "pkcs11-key-missing"
    remedy = "Correct `object` and `id`; private and public key need the same ones."


class TokenFailing(Unavailable):
    """A token that does not do its work any more."""

    code = "pkcs11-token-failing"
    remedy = "Check the token and its connection, then restart the server."


class HsmSigner:
    """A ``Signer`` over a key on a token. Safe to share between threads."""

    __slots__ = ("_key", "_lock", "algorithm", "key_id", "public_key")

    def __init__(self, key: Any, public_key: PublicKey) -> None:  # noqa: ANN401 - one class for each kind
        self._key = key
        self._lock = threading.Lock()  # a session does one thing at a time
        self.public_key = public_key
        self.algorithm = algorithm_of(public_key)
        self.key_id = key_id_of(public_key)

    def __repr__(self) -> str:
        """Names the key without showing it."""
        return f"<{type(self).__name__} {self.algorithm} {self.key_id[:16]}>"

    def sign(self, data: bytes) -> bytes:
        """Sign ``data`` as the table of ``signer`` says. Raises ``TokenFailing``."""
        from pkcs11 import Mechanism, PKCS11Error  # noqa: PLC0415 - see the module's docstring

        try:
            with self._lock:
                match self.algorithm:
                    case KeyAlgorithm.RSA_2048:
                        return bytes(self._key.sign(data, mechanism=Mechanism.SHA256_RSA_PKCS))
                    case KeyAlgorithm.ECDSA_P256:
                        digest = hashlib.sha256(data).digest()
                        raw = bytes(self._key.sign(digest, mechanism=Mechanism.ECDSA))
                    case KeyAlgorithm.ED25519:
                        return bytes(self._key.sign(data, mechanism=Mechanism.EDDSA))
        except PKCS11Error as error:
            raise TokenFailing("the token does not sign", got=type(error).__name__) from error
        r, s = (int.from_bytes(raw[at : at + _COORDINATE]) for at in (0, _COORDINATE))
        return encode_dss_signature(r, s)


class HsmCipher:
    """AES-256-GCM with a key on a token. Safe to share between threads."""

    __slots__ = ("_key", "_lock")

    def __init__(self, key: Any) -> None:  # noqa: ANN401 - the library's own type is not exported
        self._key = key
        self._lock = threading.Lock()  # a session does one thing at a time

    def encrypt(self, nonce: bytes, data: bytes, context: bytes) -> bytes:
        """Ciphertext and tag. Raises ``TokenFailing``."""
        return self._do("encrypt", nonce, data, context)

    def decrypt(self, nonce: bytes, data: bytes, context: bytes) -> bytes:
        """The plaintext. Raises ``TokenFailing``, also if the tag is wrong: tokens tell both alike."""
        return self._do("decrypt", nonce, data, context)

    def close(self) -> None:
        """End the session, if the token has it still."""
        from pkcs11 import PKCS11Error  # noqa: PLC0415 - see the module's docstring

        with self._lock, suppress(PKCS11Error):
            self._key.session.close()

    def _do(
        self, what: Literal["encrypt", "decrypt"], nonce: bytes, data: bytes, context: bytes
    ) -> bytes:
        from pkcs11 import GCMParams, Mechanism, PKCS11Error  # noqa: PLC0415 - as above

        try:
            with self._lock:
                act = getattr(self._key, what)
                parameters = GCMParams(nonce, context)
                return bytes(act(data, mechanism=Mechanism.AES_GCM, mechanism_param=parameters))
        except PKCS11Error as error:
            raise TokenFailing(f"the token does not {what}", got=type(error).__name__) from error


def open_signer(text: str) -> HsmSigner:
    """Open the key that a URI names.

    Raises ``FormatError``, ``Pkcs11Missing``, ``ModuleUnusable``, ``TokenMissing``, ``WrongPin``,
    ``TokenKeyMissing``, ``UnusableKey``, and what reading the PIN's file raises.
    """
    with _opened(text) as (session, uri):
        from pkcs11 import ObjectClass  # noqa: PLC0415 - see the module's docstring

        private = _object(session, uri, ObjectClass.PRIVATE_KEY)
        public = _public_key(_object(session, uri, ObjectClass.PUBLIC_KEY))
    signer = HsmSigner(private, public)
    verify_signature(public, signer.sign(_PROBE), _PROBE)
    return signer


def open_cipher(text: str) -> HsmCipher:
    """Open the AES key that a URI names. Raises as ``open_signer``."""
    with _opened(text) as (session, uri):
        from pkcs11 import ObjectClass  # noqa: PLC0415 - see the module's docstring

        key = _object(session, uri, ObjectClass.SECRET_KEY)
        _require_kept(key)
    return HsmCipher(key)


@contextmanager
def _opened(text: str) -> Iterator[tuple[Session, Pkcs11Uri]]:
    """A session with the token that a URI names; what the module does in the block is told."""
    uri = pkcs11uri.parse(text)
    pin = read_private(uri.pin_source).split(b"\n", 1)[0].decode("utf-8", errors="replace")
    try:
        import pkcs11  # noqa: PLC0415 - see the module's docstring
    except ImportError as error:
        raise Pkcs11Missing("keys on tokens need python-pkcs11") from error
    with _told():
        yield _session(_token(pkcs11.lib(str(uri.module)), uri), pin), uri


def _require_kept(key: Any) -> None:  # noqa: ANN401 - the library has a class for each kind
    """Refuse a key of another kind, and one that the token would hand out. Raises ``UnusableKey``."""
    from pkcs11 import Attribute, KeyType  # noqa: PLC0415 - see the module's docstring

    if key.key_type is not KeyType.AES or key[Attribute.VALUE_LEN] != _AES_256:
        raise UnusableKey("the token's key is of another kind", expected="AES-256")
    if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
        raise UnusableKey(
            "the token would hand this key out", expected="sensitive, not extractable"
        )


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the module as errors of catena; none has the PIN in it."""
    import pkcs11  # noqa: PLC0415 - see the module's docstring
    from pkcs11 import exceptions as failures  # noqa: PLC0415

    pins = (
        failures.PinIncorrect,
        failures.PinInvalid,
        failures.PinLenRange,
        failures.PinExpired,
        failures.PinLocked,
    )
    try:
        yield
    except pins as error:
        raise WrongPin("the token refuses the PIN", got=type(error).__name__) from error
    except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
        raise ModuleUnusable("the PKCS #11 module fails", got=type(error).__name__) from error


def _token(module: Any, uri: Pkcs11Uri) -> Token:  # noqa: ANN401 - the library's own type is not exported
    found: list[Token] = [
        slot.get_token()
        for slot in module.get_slots(token_present=True)
        if _is_named(slot.get_token(), uri)
    ]
    if len(found) != 1:
        raise TokenMissing("no token is what the URI names", expected="one", got=f"{len(found)}")
    return found[0]


def _is_named(token: Token, uri: Pkcs11Uri) -> bool:
    serial = token.serial.decode("utf-8", errors="replace").strip()
    return uri.token in {None, token.label.strip()} and uri.serial in {None, serial}


def _session(token: Token, pin: str) -> Session:
    """A session of its own; logging in counts for all of a process."""
    from pkcs11 import exceptions as failures  # noqa: PLC0415 - see the module's docstring

    try:
        return token.open(user_pin=pin)
    except failures.UserAlreadyLoggedIn:
        return token.open()


def _object(session: Session, uri: Pkcs11Uri, kind: object) -> Any:  # noqa: ANN401 - private or public
    from pkcs11 import Attribute  # noqa: PLC0415 - see the module's docstring

    wanted: dict[Any, Any] = {Attribute.CLASS: kind}
    if uri.object is not None:
        wanted[Attribute.LABEL] = uri.object
    if uri.id is not None:
        wanted[Attribute.ID] = uri.id
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        raise TokenKeyMissing("no key is what the URI names", expected="one", got=f"{len(found)}")
    return found[0]


def _public_key(key: Any) -> PublicKey:  # noqa: ANN401 - one class for each kind of key
    """The public half. Raises ``UnusableKey`` for a kind that catena does not use."""
    from pkcs11 import Attribute, KeyType  # noqa: PLC0415 - see the module's docstring
    from pkcs11.util.ec import encode_ec_public_key  # noqa: PLC0415
    from pkcs11.util.rsa import encode_rsa_public_key  # noqa: PLC0415

    found: object = None
    try:
        match key.key_type:
            case KeyType.RSA:
                found = load_der_public_key(encode_rsa_public_key(key))  # PKCS #1 is taken, too
            case KeyType.EC:
                found = load_der_public_key(encode_ec_public_key(key))
            case KeyType.EC_EDWARDS:
                point = bytes(key[Attribute.EC_POINT])
                found = ed25519.Ed25519PublicKey.from_public_bytes(point[-_COORDINATE:])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey("the token's public key cannot be read") from error
    algorithm_of(found)
    return found  # type: ignore[return-value]  # what ``algorithm_of`` lets through
