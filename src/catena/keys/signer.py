"""The one door to private keys: the ``Signer`` protocol, key files, and X.509 adapters.

===============  ===============================  ==========================
algorithm        signature made by ``sign``       used for
===============  ===============================  ==========================
``rsa-2048``     RSASSA-PKCS1-v1_5, SHA-256       PK, KEK, db (firmware)
``ecdsa-p256``   ECDSA, SHA-256, DER              cluster CA
``ed25519``      Ed25519, 64 bytes                release key, log key
===============  ===============================  ==========================

Key files are PKCS#8 PEM, mode 0600, encrypted when a passphrase is given. A file that its
group or others may touch is refused, because nobody knows any more who holds a copy.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Never, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from catena.errors import FormatError, NotFound, Refusal, Unavailable, UsageError
from catena.keys import cosignkey

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

MAX_KEY_FILE = 64 * 1024
_RSA_EXPONENT = 65537


class ExposedKey(Refusal):
    """A private key file that others than its owner may read or write."""

    code = "exposed-key"
    remedy = "Run `chmod 600` on the key file, and replace the key if anyone may have read it."


class MissingKey(NotFound):
    """A key file that does not exist."""

    code = "missing-key"
    remedy = "Make a key folder with `catena keys init`."


class WrongPassphrase(UsageError):
    """A passphrase that is missing, wrong, or given for a key that is not encrypted."""

    code = "wrong-passphrase"
    remedy = "Give the passphrase that the key was made with (--passphrase-file)."


class UnusableKey(FormatError):
    """A file that holds no key of an algorithm that catena uses."""

    code = "unusable-key"
    remedy = "Use a PEM file with an RSA-2048, P-256 or Ed25519 key."


class KeyExists(UsageError):
    """A key would overwrite a file; keys are never overwritten."""

    code = "key-exists"
    remedy = "Choose another place, or move the old key away first."


class KeyUnwritable(Unavailable):
    """A key file could not be stored."""

    code = "key-unwritable"
    remedy = "Check that the folder exists, that you may write to it, and that the disk has room."


class KeyUnreadable(Unavailable):
    """A key file that is there but cannot be read."""

    code = "key-unreadable"
    remedy = "Check that the path is a file and that you own it."


class ForgedSignature(Refusal):
    """A signature that does not hold under the key it should hold under."""

    code = "forged-signature"
    remedy = "Do not use what was signed; obtain it again from its publisher."


class KeyAlgorithm(StrEnum):
    """The algorithms of catena's own keys."""

    RSA_2048 = "rsa-2048"
    ECDSA_P256 = "ecdsa-p256"
    ED25519 = "ed25519"


class Signer(Protocol):
    """Whatever can sign with one private key: a file here, a PKCS#11 token elsewhere."""

    @property
    def algorithm(self) -> KeyAlgorithm:
        """What kind of key this is."""

    @property
    def public_key(self) -> PublicKey:
        """The public half."""

    @property
    def key_id(self) -> str:
        """Hex SHA-256 of the SubjectPublicKeyInfo in DER."""

    def sign(self, data: bytes) -> bytes:
        """Sign ``data`` as the table of this module says."""


class PrivateKeySigner:
    """A ``Signer`` over a private key in this process's memory."""

    __slots__ = ("_private_key", "_sign", "algorithm", "key_id", "public_key")

    def __init__(self, private_key: PrivateKey) -> None:
        self._private_key = private_key
        self._sign = _signing(private_key)
        self.public_key: PublicKey = private_key.public_key()
        self.algorithm = algorithm_of(self.public_key)
        self.key_id = key_id_of(self.public_key)

    def __repr__(self) -> str:
        """Names the key without showing it."""
        return f"<{type(self).__name__} {self.algorithm} {self.key_id[:16]}>"

    def sign(self, data: bytes) -> bytes:
        """Sign ``data`` as the table of this module says."""
        return self._sign(data)


def _signing(private_key: PrivateKey) -> Callable[[bytes], bytes]:
    """How this key signs, found out once."""
    match private_key:
        case rsa.RSAPrivateKey() as key:
            return partial(key.sign, padding=padding.PKCS1v15(), algorithm=hashes.SHA256())
        case ec.EllipticCurvePrivateKey() as key:
            return partial(key.sign, signature_algorithm=ec.ECDSA(hashes.SHA256()))
        case key:
            return key.sign


def generate_key(algorithm: KeyAlgorithm) -> PrivateKey:
    """A fresh private key from the operating system's random source."""
    match algorithm:
        case KeyAlgorithm.RSA_2048:
            return rsa.generate_private_key(_RSA_EXPONENT, 2048)
        case KeyAlgorithm.ECDSA_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()


def algorithm_of(key: object) -> KeyAlgorithm:
    """The algorithm of a public key. Raises ``UnusableKey`` for any that catena does not use."""
    match key:
        case rsa.RSAPublicKey(key_size=2048):
            return KeyAlgorithm.RSA_2048
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1):
            return KeyAlgorithm.ECDSA_P256
        case ed25519.Ed25519PublicKey():
            return KeyAlgorithm.ED25519
        case _:
            raise UnusableKey(
                "key has an algorithm or size that catena does not use",
                expected=", ".join(KeyAlgorithm),
                got=type(key).__name__,
            )


def key_id_of(key: PublicKey) -> str:
    """Hex SHA-256 of the SubjectPublicKeyInfo in DER."""
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def verify_signature(key: PublicKey, signature: bytes, data: bytes) -> None:
    """Check a signature made by ``Signer.sign``. Raises ``ForgedSignature``."""
    try:
        match key:
            case rsa.RSAPublicKey():
                key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            case ec.EllipticCurvePublicKey():
                key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            case _:
                key.verify(signature, data)
    except InvalidSignature as error:
        raise ForgedSignature(
            "signature does not hold", expected=f"key {key_id_of(key)[:16]}"
        ) from error


def load_signer(path: Path, passphrase: bytes | None = None) -> PrivateKeySigner:
    """Open a private key file.

    Key files that cosign made are opened as well (``keys.cosignkey``). Raises ``MissingKey``,
    ``ExposedKey``, ``WrongPassphrase`` or ``UnusableKey``.
    """
    pem = read_private(path)
    if cosignkey.is_cosign_key(pem):
        return PrivateKeySigner(_cosign_key(path, pem, passphrase or b""))
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except TypeError as error:
        problem = "is encrypted" if passphrase is None else "is not encrypted"
        raise WrongPassphrase(f"key {path.name} {problem}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        if passphrase is not None and b"ENCRYPTED" in pem:
            raise WrongPassphrase(f"passphrase does not open key {path.name}") from error
        raise UnusableKey(f"{path.name} holds no private key") from error
    return PrivateKeySigner(_usable(path, key))


def _cosign_key(path: Path, pem: bytes, passphrase: bytes) -> PrivateKey:
    """A key in cosign's own file; cosign encrypts with an empty passphrase as well."""
    der = cosignkey.decrypt(pem, passphrase)
    if der is None:
        raise WrongPassphrase(f"passphrase does not open key {path.name}")
    try:
        key = serialization.load_der_private_key(der, None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise UnusableKey(f"{path.name} holds no private key") from None
    return _usable(path, key)


def _usable(path: Path, key: object) -> PrivateKey:
    if not isinstance(
        key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
    ):
        raise UnusableKey(f"{path.name} is a key of another kind", got=type(key).__name__)
    return key


def read_private(path: Path) -> bytes:
    """Read a key file through one descriptor, so that what was checked is what is read.

    Raises ``MissingKey``, ``ExposedKey``, ``KeyUnreadable`` or ``UnusableKey``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MissingKey(f"no key file {path.name}", got=str(path)) from error
    except OSError as error:
        raise KeyUnreadable(f"cannot open key file {path.name}: {error.strerror}") from error
    try:
        _check_private(path, os.fstat(descriptor).st_mode)
        return os.read(descriptor, MAX_KEY_FILE)
    finally:
        os.close(descriptor)


def _check_private(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise UnusableKey(f"{path.name} is not a regular file")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ExposedKey(
            f"key file {path.name} is open to others",
            expected="mode 0600",
            got=f"{stat.S_IMODE(mode):04o}",
        )


def write_key(path: Path, private_key: PrivateKey, passphrase: bytes | None = None) -> None:
    """Store a private key: PKCS#8 PEM, 0600, on disk when this returns. Raises ``KeyExists``."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        if not passphrase:
            raise WrongPassphrase("the passphrase is empty")
        encryption = serialization.BestAvailableEncryption(passphrase)
    pem = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    write_new(path, pem, mode=0o600)


def write_new(path: Path, content: bytes, *, mode: int) -> None:
    """Create a file that must not exist yet and wait until it is on disk."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise KeyExists(f"{path.name} exists already", got=str(path)) from error
    except OSError as error:
        raise KeyUnwritable(f"cannot create {path.name}: {error.strerror}") from error
    with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor has no path
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            path.unlink()
            raise KeyUnwritable(f"cannot write {path.name}: {error.strerror}") from error


def load_public_key(path: Path) -> PublicKey:
    """Open a public key file (PEM SubjectPublicKeyInfo). Raises ``MissingKey``, ``UnusableKey``."""
    try:
        with path.open("rb") as file:
            pem = file.read(MAX_KEY_FILE)
    except FileNotFoundError as error:
        raise MissingKey(f"no key file {path.name}", got=str(path)) from error
    except OSError as error:
        raise KeyUnreadable(f"cannot read {path.name}: {error.strerror}") from error
    return parse_public_key(pem)


def parse_public_key(pem: bytes) -> PublicKey:
    """Read a PEM SubjectPublicKeyInfo. Raises ``UnusableKey``."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey("not a PEM public key") from error
    algorithm_of(key)
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise UnusableKey("public key is of another kind", got=type(key).__name__)
    return key


def public_pem(key: PublicKey) -> bytes:
    """The public key as PEM SubjectPublicKeyInfo."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def signature_hash(signer: Signer) -> hashes.SHA256 | None:
    """The hash that X.509 builders name beside the key: none for Ed25519."""
    return None if signer.algorithm is KeyAlgorithm.ED25519 else hashes.SHA256()


def x509_key(signer: Signer) -> PrivateKey:
    """The signer in the shape that ``cryptography``'s X.509 builders take.

    They only ask such a key for its public half and for signatures; everything that would
    need the private numbers raises ``UnusableKey``.
    """
    match signer.algorithm:
        case KeyAlgorithm.RSA_2048:
            return _RsaKey(signer)
        case KeyAlgorithm.ECDSA_P256:
            return _P256Key(signer)
        case KeyAlgorithm.ED25519:
            return _Ed25519Key(signer)


def _closed(*_arguments: object, **_options: object) -> Never:
    """What every operation beyond signing answers."""
    raise UnusableKey("a signer only signs; its private key does not leave it")


class _RsaKey(rsa.RSAPrivateKey):
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    key_size = 2048  # a constant where the interface has a property
    decrypt = private_numbers = private_bytes = __copy__ = __deepcopy__ = _closed

    def public_key(self) -> rsa.RSAPublicKey:
        key = self._signer.public_key
        return key if isinstance(key, rsa.RSAPublicKey) else _closed()

    def sign(self, data: bytes, padding: object, algorithm: object) -> bytes:
        del padding, algorithm  # the Signer fixes both
        return self._signer.sign(bytes(data))


class _P256Key(ec.EllipticCurvePrivateKey):
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    curve = ec.SECP256R1()  # constants where the interface has properties
    key_size = 256
    exchange = private_numbers = private_bytes = __copy__ = __deepcopy__ = _closed

    def public_key(self) -> ec.EllipticCurvePublicKey:
        key = self._signer.public_key
        return key if isinstance(key, ec.EllipticCurvePublicKey) else _closed()

    def sign(self, data: object, signature_algorithm: object) -> bytes:
        del signature_algorithm  # the Signer fixes it
        return self._signer.sign(bytes(data))  # type: ignore[call-overload]  # any buffer


class _Ed25519Key(ed25519.Ed25519PrivateKey):
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    private_bytes = private_bytes_raw = __copy__ = __deepcopy__ = _closed

    def public_key(self) -> ed25519.Ed25519PublicKey:
        key = self._signer.public_key
        return key if isinstance(key, ed25519.Ed25519PublicKey) else _closed()

    def sign(self, data: object) -> bytes:
        return self._signer.sign(bytes(data))  # type: ignore[call-overload]  # any buffer
