"""Private key files that cosign made: scrypt and NaCl's secretbox around a PKCS#8 key.

``cosign``, "pkg/cosign/keys.go" and go-securesystemslib's ``encrypted`` package. Inside the PEM block is JSON::

    {"kdf": {"name": "scrypt", "params": {"N", "r": 8, "p": 1}, "salt"},
     "cipher": {"name": "nacl/secretbox", "nonce"}, "ciphertext"}

A secretbox is XSalsa20-Poly1305 (Bernstein, "Extending the Salsa20 nonce"; "Cryptography in NaCl"). XSalsa20
is written out here, because OpenSSL has none: a key file is three blocks of it. This code takes no
care of timing; it runs where its user typed the passphrase.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.poly1305 import Poly1305

from catena.errors import FormatError

LABELS = (b"ENCRYPTED SIGSTORE PRIVATE KEY", b"ENCRYPTED COSIGN PRIVATE KEY")
MAX_CIPHERTEXT = 16 * 1024

_COSTS = frozenset({2**15, 2**16, 2**17})
_KEY, _TAG, _NONCE = 32, 16, 24
_MEMORY = 64 * 1024 * 1024
_CONSTANT = b"expand 32-byte k"
_BLOCK = 64
_MASK = 0xFFFFFFFF
_QUARTERS = (
    ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),  # columns
    ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)),  # rows
)


class BadCosignKey(FormatError):
    """A key file that cosign did not make."""

    code = "cosign-key-malformed"
    remedy = "Make it with `cosign generate-key-pair`, or give a PKCS#8 key."


class _Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    n: int = msgspec.field(name="N")
    r: int
    p: int


class _Kdf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    params: _Params
    salt: Annotated[bytes, msgspec.Meta(min_length=8, max_length=64)]


class _Cipher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    nonce: Annotated[bytes, msgspec.Meta(min_length=_NONCE, max_length=_NONCE)]


class _Box(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kdf: _Kdf
    cipher: _Cipher
    ciphertext: Annotated[bytes, msgspec.Meta(min_length=_TAG, max_length=MAX_CIPHERTEXT)]


def is_cosign_key(pem: bytes) -> bool:
    """Whether a PEM file says that cosign made it."""
    return any(pem.lstrip().startswith(b"-----BEGIN " + label + b"-----") for label in LABELS)


def decrypt(pem: bytes, passphrase: bytes) -> bytes | None:
    """The PKCS#8 key in DER, or None if the passphrase does not open it. Raises ``BadCosignKey``."""
    box = _parse(pem)
    params = box.kdf.params
    key = hashlib.scrypt(
        passphrase,
        salt=box.kdf.salt,
        n=params.n,
        r=params.r,
        p=params.p,
        maxmem=128 * params.n * params.r + _MEMORY,
        dklen=_KEY,
    )
    return open_secretbox(key, box.cipher.nonce, box.ciphertext)


def open_secretbox(key: bytes, nonce: bytes, boxed: bytes) -> bytes | None:
    """What NaCl's ``crypto_secretbox`` has closed (tag first), or None if the tag does not hold."""
    tag, sealed = boxed[:_TAG], boxed[_TAG:]
    stream = _xsalsa20(key, nonce, _KEY + len(sealed))
    try:
        Poly1305.verify_tag(stream[:_KEY], sealed, tag)
    except InvalidSignature:
        return None
    return bytes(one ^ two for one, two in zip(sealed, stream[_KEY:], strict=True))


def _parse(pem: bytes) -> _Box:
    lines = [line.strip() for line in pem.strip().splitlines()] or [b""]
    ends = [(b"-----BEGIN %s-----" % one, b"-----END %s-----" % one) for one in LABELS]
    if (lines[0], lines[-1]) not in ends:
        raise BadCosignKey("not a key file of cosign")
    try:
        data = base64.b64decode(b"".join(lines[1:-1]), validate=True)
        box = msgspec.json.decode(data, type=_Box)
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError):
        raise BadCosignKey("key file of cosign is damaged") from None  # it holds a key
    params = box.kdf.params
    known = (box.kdf.name, box.cipher.name) == ("scrypt", "nacl/secretbox")
    if not known or params.n not in _COSTS or (params.r, params.p) != (8, 1):
        raise BadCosignKey("key file of cosign uses other algorithms or costs")
    return box


def _xsalsa20(key: bytes, nonce: bytes, size: int) -> bytes:
    """A stream of ``size`` bytes: a subkey from the nonce's first half, Salsa20 with the second."""
    mixed = _rounds(_state(key, nonce[:16]))
    subkey = struct.pack("<8I", *(mixed[at] for at in (0, 5, 10, 15, 6, 7, 8, 9)))
    blocks = -(-size // _BLOCK)
    return b"".join(_salsa20(subkey, nonce[16:], number) for number in range(blocks))[:size]


def _salsa20(key: bytes, nonce: bytes, number: int) -> bytes:
    state = _state(key, nonce + number.to_bytes(8, "little"))
    mixed = _rounds(state)
    added = ((one + two) & _MASK for one, two in zip(state, mixed, strict=True))
    return struct.pack("<16I", *added)


def _state(key: bytes, middle: bytes) -> Sequence[int]:
    """The matrix: constants on the diagonal, key around 16 bytes of nonce and counter."""
    c = struct.unpack("<4I", _CONSTANT)
    k = struct.unpack("<8I", key)
    n = struct.unpack("<4I", middle)
    return (c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3])


def _rounds(state: Sequence[int]) -> list[int]:
    """Ten double rounds (Salsa20 specification, sections 3 to 7)."""
    x = list(state)
    for number in range(20):
        for a, b, c, d in _QUARTERS[number % 2]:
            x[b] ^= _rotated(x[a] + x[d], 7)
            x[c] ^= _rotated(x[b] + x[a], 9)
            x[d] ^= _rotated(x[c] + x[b], 13)
            x[a] ^= _rotated(x[d] + x[c], 18)
    return x


def _rotated(value: int, by: int) -> int:
    value &= _MASK
    return ((value << by) | (value >> (32 - by))) & _MASK
