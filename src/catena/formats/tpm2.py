r"""TPM 2.0 structures that a server reads and makes (TPM 2.0 Library, Part 2, revision 1.59).

All integers are big-endian; a ``TPM2B`` is a u16 length and that many bytes.

==========================  =====================  =============================================
``TPMT_PUBLIC``             12.2.4                 ``parse_public``, ``encode_*_public``
``TPMS_ATTEST``             10.12.12               ``parse_attest``
``TPMT_SIGNATURE``          11.3.4                 ``parse_signature``
``TPML_PCR_SELECTION``      10.9.7                 ``parse_pcr_selections``, ``encode_…``
``TPMT_SENSITIVE``          12.3.2.4               ``encode_keyedhash_sensitive``
==========================  =====================  =============================================

Parsing proves shape only. Whether a magic, a type or an attribute is acceptable is decided in
``appraise``; an RSA or ECC public area may still hold numbers that are no key until ``key()``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import lru_cache
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from catena.errors import FormatError
from catena.formats.reader import Reader
from catena.ids import PCR_COUNT, HashAlg, hash_alg_from_tpm_id

TPM_GENERATED_VALUE = 0xFF544347
TPM_ST_ATTEST_QUOTE = 0x8018
RH_OWNER = 0x40000001
RH_ENDORSEMENT = 0x4000000B

MAX_RSA_BYTES = 512
MAX_ECC_BYTES = 66
MAX_DIGEST = 64
MAX_NAME = 2 + MAX_DIGEST
MAX_DATA = 2 + MAX_DIGEST
MAX_SELECTIONS = 16
MAX_SELECT_BYTES = 4
MAX_PUBLIC = 1024
_DEFAULT_EXPONENT = 65537
_CLOCK = struct.Struct(">QIIB")
"""TPMS_CLOCK_INFO: clock, resetCount, restartCount, safe."""


class TpmAlg(IntEnum):
    """TPM_ALG_ID values used here beside the hashes (TCG Algorithm Registry 1.32, table 3)."""

    RSA = 0x0001
    AES = 0x0006
    KEYEDHASH = 0x0008
    NULL = 0x0010
    RSASSA = 0x0014
    RSAES = 0x0015
    RSAPSS = 0x0016
    OAEP = 0x0017
    ECDSA = 0x0018
    ECDH = 0x0019
    ECC = 0x0023
    CFB = 0x0043


class TpmaObject(IntFlag):
    """TPMA_OBJECT, the attributes of a key (Part 2, 8.3)."""

    FIXED_TPM = 1 << 1
    ST_CLEAR = 1 << 2
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ADMIN_WITH_POLICY = 1 << 7
    NO_DA = 1 << 10
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN_ENCRYPT = 1 << 18
    X509_SIGN = 1 << 19


class EccCurve(IntEnum):
    """TPM_ECC_CURVE (TCG Algorithm Registry 1.32, table 4)."""

    P256 = 0x0003
    P384 = 0x0004
    P521 = 0x0005

    @property
    def bits(self) -> int:
        """Size of the field in bits."""
        return _CURVES[self].key_size

    @property
    def size(self) -> int:
        """Bytes of one coordinate."""
        return (self.bits + 7) // 8


_CURVES: dict[EccCurve, ec.EllipticCurve] = {
    EccCurve.P256: ec.SECP256R1(),
    EccCurve.P384: ec.SECP384R1(),
    EccCurve.P521: ec.SECP521R1(),
}
_SIGNATURES: dict[int, Literal["rsassa", "rsapss", "ecdsa"]] = {
    TpmAlg.RSASSA: "rsassa",
    TpmAlg.RSAPSS: "rsapss",
    TpmAlg.ECDSA: "ecdsa",
}
_KEY_HASHES = frozenset(HashAlg) - {HashAlg.SM3_256}
"""What names and signatures of keys may use; SM3 is known for the sake of firmware logs only."""
_RSA_SCHEMES = frozenset({TpmAlg.RSASSA, TpmAlg.RSAES, TpmAlg.RSAPSS, TpmAlg.OAEP})
_ECC_SCHEMES = frozenset({TpmAlg.ECDSA, TpmAlg.ECDH})


@dataclass(frozen=True, slots=True)
class SymmetricDef:
    """TPMT_SYM_DEF_OBJECT of a storage key, always AES here (11.1.7)."""

    key_bits: int
    mode: int


@dataclass(frozen=True, slots=True)
class Scheme:
    """TPMT_RSA_SCHEME or TPMT_ECC_SCHEME; ``hash`` is None where the scheme has none."""

    algorithm: TpmAlg
    hash: HashAlg | None


@dataclass(frozen=True, slots=True)
class Public:
    """TPMT_PUBLIC of an RSA or ECC key.

    ``modulus`` and ``exponent`` are set for ``rsa``, ``curve``, ``x`` and ``y`` for ``ecc``;
    ``raw`` are the bytes it was read from, which its name is a hash of. The TPM encodes the
    exponent 65537 as 0; ``exponent`` is the real one.
    """

    kind: Literal["rsa", "ecc"]
    name_alg: HashAlg
    attributes: TpmaObject
    auth_policy: bytes
    symmetric: SymmetricDef | None
    scheme: Scheme | None
    key_bits: int
    raw: bytes
    exponent: int = 0
    modulus: bytes = b""
    curve: EccCurve | None = None
    x: bytes = b""
    y: bytes = b""

    def name(self) -> bytes:
        """The object's Name: nameAlg ‖ H(TPMT_PUBLIC) (Part 1, clause 16)."""
        return object_name(self.name_alg, self.raw)

    def key(self) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
        """The public key. Raises ``FormatError`` for a point off its curve or a bad modulus."""
        try:
            if self.curve is not None:
                x, y = int.from_bytes(self.x, "big"), int.from_bytes(self.y, "big")
                return ec.EllipticCurvePublicNumbers(x, y, _CURVES[self.curve]).public_key()
            modulus = int.from_bytes(self.modulus, "big")
            return rsa.RSAPublicNumbers(self.exponent, modulus).public_key()
        except ValueError as error:
            raise FormatError(f"TPMT_PUBLIC holds no {self.kind} public key") from error


@dataclass(frozen=True, slots=True)
class ClockInfo:
    """TPMS_CLOCK_INFO (10.11.1); ``clock`` is in milliseconds."""

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """TPMS_PCR_SELECTION (10.6.2): a bank (its TPM_ALG_ID if catena does not know it) and PCRs."""

    bank: HashAlg | int
    pcrs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class QuoteInfo:
    """TPMS_QUOTE_INFO (10.12.4)."""

    selections: tuple[PcrSelection, ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class Attest:
    """TPMS_ATTEST; ``magic`` and ``type`` are as found. Of another type ``quote`` is None and
    ``body`` has what was attested, unread (``formats.tpm2nv`` for an NV index).
    """

    magic: int
    type: int
    qualified_signer: bytes
    extra_data: bytes
    clock: ClockInfo
    firmware_version: int
    quote: QuoteInfo | None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class TpmSignature:
    """TPMT_SIGNATURE: ``raw`` for the RSA schemes, ``r`` and ``s`` for ECDSA."""

    scheme: Literal["rsassa", "rsapss", "ecdsa"]
    hash: HashAlg
    raw: bytes = b""
    r: int = 0
    s: int = 0

    def signature_bytes(self) -> bytes:
        """What ``cryptography`` verifies: the RSA signature, or the DER of r and s."""
        return encode_dss_signature(self.r, self.s) if self.scheme == "ecdsa" else self.raw


def object_name(name_alg: HashAlg, public_area: bytes) -> bytes:
    """The Name of the object with this TPMT_PUBLIC (Part 1, clause 16)."""
    return name_alg.tpm_id.to_bytes(2, "big") + name_alg.digest(public_area)


def primary_qualified_name(name: bytes, hierarchy: int) -> bytes:
    """The Qualified Name of a primary key: nameAlg ‖ H(hierarchy handle ‖ Name) (Part 1, 16).

    This is what ``qualifiedSigner`` in TPMS_ATTEST holds.
    """
    name_alg = hash_alg_from_tpm_id(int.from_bytes(name[:2], "big"))
    if name_alg is None or len(name) != 2 + name_alg.size:
        raise FormatError("not a TPM object name", expected="nameAlg and digest")
    handle = hierarchy.to_bytes(4, "big")
    return name[:2] + name_alg.digest(handle + name)


def parse_public_2b(data: bytes) -> Public:
    """Read a TPM2B_PUBLIC. Raises ``FormatError``."""
    reader = Reader(data, order="big")
    area = reader.sized(2, MAX_PUBLIC, "TPM2B_PUBLIC")
    reader.done("TPM2B_PUBLIC")
    return parse_public(area)


def parse_public(data: bytes) -> Public:
    """Read the TPMT_PUBLIC of an RSA or ECC key. Raises ``FormatError``."""
    reader = Reader(data, order="big")
    algorithm = reader.uint(2, "public type")
    match algorithm:
        case TpmAlg.RSA:
            public = _rsa_public(reader, data, _head(reader))
        case TpmAlg.ECC:
            public = _ecc_public(reader, data, _head(reader))
        case _:
            raise FormatError("unsupported public type", got=f"{algorithm:#06x}")
    reader.done("TPMT_PUBLIC")
    return public


@dataclass(frozen=True, slots=True)
class _Head:
    """What RSA and ECC public areas have in common, in wire order."""

    name_alg: HashAlg
    attributes: TpmaObject
    auth_policy: bytes
    symmetric: SymmetricDef | None


def _head(reader: Reader) -> _Head:
    return _Head(
        name_alg=_hash(reader, "nameAlg"),
        attributes=_attributes(reader),
        auth_policy=reader.sized(2, MAX_DIGEST, "authPolicy"),
        symmetric=_symmetric(reader),
    )


def _rsa_public(reader: Reader, raw: bytes, head: _Head) -> Public:
    """TPMS_RSA_PARMS and TPM2B_PUBLIC_KEY_RSA (12.2.3.5, 11.2.4.5)."""
    scheme = _scheme(reader, _RSA_SCHEMES)
    key_bits = reader.uint(2, "keyBits")
    exponent = reader.uint(4, "exponent") or _DEFAULT_EXPONENT
    start = reader.offset
    modulus = reader.sized(2, MAX_RSA_BYTES, "modulus")
    if len(modulus) * 8 != key_bits or not modulus or not modulus[0] & 0x80:
        raise FormatError("modulus is not of keyBits", offset=start, expected=f"{key_bits} bits")
    return Public(
        kind="rsa",
        name_alg=head.name_alg,
        attributes=head.attributes,
        auth_policy=head.auth_policy,
        symmetric=head.symmetric,
        scheme=scheme,
        key_bits=key_bits,
        raw=raw,
        exponent=exponent,
        modulus=modulus,
    )


def _ecc_public(reader: Reader, raw: bytes, head: _Head) -> Public:
    """TPMS_ECC_PARMS and TPMS_ECC_POINT (12.2.3.6, 11.2.5.2)."""
    scheme = _scheme(reader, _ECC_SCHEMES)
    start = reader.offset
    curve_id = reader.uint(2, "curveID")
    if curve_id not in set(EccCurve):
        raise FormatError("unsupported curve", offset=start, got=f"{curve_id:#06x}")
    curve = EccCurve(curve_id)
    if reader.uint(2, "kdf") != TpmAlg.NULL:
        raise FormatError("unsupported key derivation", offset=start + 2)
    return Public(
        kind="ecc",
        name_alg=head.name_alg,
        attributes=head.attributes,
        auth_policy=head.auth_policy,
        symmetric=head.symmetric,
        scheme=scheme,
        key_bits=curve.bits,
        raw=raw,
        curve=curve,
        x=reader.sized(2, curve.size, "x"),
        y=reader.sized(2, curve.size, "y"),
    )


def _hash(reader: Reader, what: str) -> HashAlg:
    start = reader.offset
    tpm_id = reader.uint(2, what)
    alg = hash_alg_from_tpm_id(tpm_id)
    if alg not in _KEY_HASHES:
        raise FormatError(f"{what} is no known hash", offset=start, got=f"{tpm_id:#06x}")
    return alg


def _attributes(reader: Reader) -> TpmaObject:
    start = reader.offset
    bits = reader.uint(4, "objectAttributes")
    if bits & ~sum(TpmaObject):
        raise FormatError("reserved object attributes are set", offset=start, got=f"{bits:#010x}")
    return TpmaObject(bits)


def _symmetric(reader: Reader) -> SymmetricDef | None:
    start = reader.offset
    algorithm = reader.uint(2, "symmetric algorithm")
    if algorithm == TpmAlg.NULL:
        return None
    if algorithm != TpmAlg.AES:
        raise FormatError("cipher is not AES", offset=start, got=f"{algorithm:#06x}")
    return SymmetricDef(reader.uint(2, "symmetric keyBits"), reader.uint(2, "symmetric mode"))


def _scheme(reader: Reader, allowed: frozenset[TpmAlg]) -> Scheme | None:
    start = reader.offset
    algorithm = reader.uint(2, "scheme")
    if algorithm == TpmAlg.NULL:
        return None
    if algorithm not in allowed:
        raise FormatError("unsupported scheme", offset=start, got=f"{algorithm:#06x}")
    digest = None if algorithm == TpmAlg.RSAES else _hash(reader, "scheme hash")
    return Scheme(TpmAlg(algorithm), digest)


def parse_attest(data: bytes) -> Attest:
    """Read a TPMS_ATTEST. Raises ``FormatError``; magic and type are for the verifier to refuse."""
    reader = Reader(data, order="big")
    magic, attest_type = reader.uint(4, "magic"), reader.uint(2, "type")
    signer = reader.sized(2, MAX_NAME, "qualifiedSigner")
    extra = reader.sized(2, MAX_DATA, "extraData")
    clock = _clock(reader)
    firmware = reader.uint(8, "firmwareVersion")
    quote = None
    if attest_type == TPM_ST_ATTEST_QUOTE:
        quote = QuoteInfo(_pcr_selections(reader), reader.sized(2, MAX_DIGEST, "pcrDigest"))
        reader.done("TPMS_ATTEST")
    body = reader.take(reader.remaining, "attested")
    return Attest(magic, attest_type, signer, extra, clock, firmware, quote, body)


def _clock(reader: Reader) -> ClockInfo:
    clock, resets, restarts, safe = _CLOCK.unpack(reader.take(_CLOCK.size, "clockInfo"))
    if safe > 1:
        raise FormatError("safe is no TPMI_YES_NO", offset=reader.offset - 1, got=f"{safe}")
    return ClockInfo(clock, resets, restarts, bool(safe))


def parse_pcr_selections(data: bytes) -> tuple[PcrSelection, ...]:
    """Read a TPML_PCR_SELECTION. Raises ``FormatError``."""
    reader = Reader(data, order="big")
    selections = _pcr_selections(reader)
    reader.done("TPML_PCR_SELECTION")
    return selections


def _pcr_selections(reader: Reader) -> tuple[PcrSelection, ...]:
    start = reader.offset
    count = reader.uint(4, "pcrSelect count")
    if count > MAX_SELECTIONS:
        raise FormatError("too many PCR selections", offset=start, got=f"{count}")
    return tuple(_pcr_selection(reader) for _ in range(count))


def _pcr_selection(reader: Reader) -> PcrSelection:
    tpm_id = reader.uint(2, "pcrSelect hash")
    pcrs = _selected(reader.sized(1, MAX_SELECT_BYTES, "pcrSelect"))
    return PcrSelection(hash_alg_from_tpm_id(tpm_id) or tpm_id, pcrs)


@lru_cache(maxsize=64)
def _selected(select: bytes) -> tuple[int, ...]:
    """The PCRs of a bitmap; nearly all quotes have the same one."""
    bits = int.from_bytes(select, "little")
    return tuple(pcr for pcr in range(MAX_SELECT_BYTES * 8) if bits >> pcr & 1)


def parse_signature(data: bytes) -> TpmSignature:
    """Read a TPMT_SIGNATURE made by RSASSA, RSAPSS or ECDSA. Raises ``FormatError``."""
    reader = Reader(data, order="big")
    algorithm = reader.uint(2, "sigAlg")
    scheme = _SIGNATURES.get(algorithm)
    if scheme is None:
        raise FormatError("unsupported signature scheme", got=f"{algorithm:#06x}")
    digest = _hash(reader, "signature hash")
    if scheme == "ecdsa":
        r = int.from_bytes(reader.sized(2, MAX_ECC_BYTES, "r"), "big")
        s = int.from_bytes(reader.sized(2, MAX_ECC_BYTES, "s"), "big")
        signature = TpmSignature(scheme, digest, r=r, s=s)
    else:
        raw = reader.sized(2, MAX_RSA_BYTES, "RSA signature")
        signature = TpmSignature(scheme, digest, raw=raw)
    reader.done("TPMT_SIGNATURE")
    return signature


def sized2b(content: bytes) -> bytes:
    """``content`` as a TPM2B."""
    return len(content).to_bytes(2, "big") + content


def encode_pcr_selection(bank: HashAlg, pcrs: Iterable[int]) -> bytes:
    """TPML_PCR_SELECTION of some PCRs of one bank."""
    bits = sum(1 << pcr for pcr in set(pcrs)).to_bytes(PCR_COUNT // 8, "little")
    return b"\0\0\0\1" + _u16(bank.tpm_id) + len(bits).to_bytes(1, "big") + bits


def encode_keyedhash_public(
    *, name_alg: HashAlg, attributes: TpmaObject, auth_policy: bytes, unique: bytes
) -> bytes:
    """TPMT_PUBLIC of a sealed data object; ``unique`` is H(seedValue ‖ secret) (Part 1, 27.2)."""
    head = _encode_head(TpmAlg.KEYEDHASH, name_alg, attributes, auth_policy)
    return head + _u16(TpmAlg.NULL) + sized2b(unique)


def encode_keyedhash_sensitive(*, auth_value: bytes, seed_value: bytes, secret: bytes) -> bytes:
    """TPMT_SENSITIVE of a sealed data object, without its outer TPM2B."""
    return _u16(TpmAlg.KEYEDHASH) + sized2b(auth_value) + sized2b(seed_value) + sized2b(secret)


def encode_public(public: Public) -> bytes:
    """TPMT_PUBLIC from the fields of ``public`` (``raw`` is not looked at).

    For a parsed one the result equals ``raw``, unless it spelled the exponent 65537 out. As a
    template for TPM2_CreatePrimary, modulus or x and y are zeros or empty.
    """
    kind = TpmAlg.RSA if public.curve is None else TpmAlg.ECC
    head = _encode_head(kind, public.name_alg, public.attributes, public.auth_policy)
    head += _encode_symmetric(public.symmetric) + _encode_scheme(public.scheme)
    if public.curve is not None:
        point = sized2b(public.x) + sized2b(public.y)
        return head + _u16(public.curve) + _u16(TpmAlg.NULL) + point
    exponent = 0 if public.exponent == _DEFAULT_EXPONENT else public.exponent
    return head + _u16(public.key_bits) + exponent.to_bytes(4, "big") + sized2b(public.modulus)


def _encode_head(
    kind: TpmAlg, name_alg: HashAlg, attributes: TpmaObject, auth_policy: bytes
) -> bytes:
    head = _u16(kind) + _u16(name_alg.tpm_id) + attributes.to_bytes(4, "big")
    return head + sized2b(auth_policy)


def _encode_symmetric(symmetric: SymmetricDef | None) -> bytes:
    if symmetric is None:
        return _u16(TpmAlg.NULL)
    return _u16(TpmAlg.AES) + _u16(symmetric.key_bits) + _u16(symmetric.mode)


def _encode_scheme(scheme: Scheme | None) -> bytes:
    if scheme is None:
        return _u16(TpmAlg.NULL)
    digest = b"" if scheme.hash is None else _u16(scheme.hash.tpm_id)
    return _u16(scheme.algorithm) + digest


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")
