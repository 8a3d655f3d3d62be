"""A TPM's two keys in software: what ``catena lab fleet`` attests with, and nothing a machine may.

Anybody who has these keys can say whatever they like with them, so their endorsement is of the kind
``software``, which every verdict and ``catena node show`` name. What a server checks is all real: the EK's
certificate and template, MakeCredential, the restricted AK, TPMS_ATTEST and its signature.

RSA keys are slow to make. A pool of primes gives far more moduli than primes, so a fleet's EKs share
primes: good enough to be challenged by our own server, and broken for any other use.
"""

from __future__ import annotations

import hmac
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from catena.appraise.ekpath import EK_USAGE
from catena.errors import Refusal
from catena.formats import tpm2
from catena.formats.nodeapi import ActivateRequest, EnrollChallenge, EnrollRequest
from catena.formats.tpm2 import EccCurve, Public, Scheme, SymmetricDef, TpmAlg, TpmaObject
from catena.ids import QUOTED_PCRS, HashAlg
from catena.keys.kdf import kdfa
from catena.lab.fleet.node import Quoted


class ForeignCredential(Refusal):
    """A challenge for another EK or AK than this one's."""

    code = "foreign-credential"
    remedy = "Enrol again."


_SHA256 = HashAlg.SHA256
_EK_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_ORIGIN = TpmaObject.FIXED_TPM | TpmaObject.FIXED_PARENT | TpmaObject.SENSITIVE_DATA_ORIGIN
_EK_ATTRIBUTES = _ORIGIN | TpmaObject.ADMIN_WITH_POLICY | TpmaObject.RESTRICTED | TpmaObject.DECRYPT
AK_ATTRIBUTES = (
    _ORIGIN
    | TpmaObject.USER_WITH_AUTH
    | TpmaObject.NO_DA
    | TpmaObject.RESTRICTED
    | TpmaObject.SIGN_ENCRYPT
)
_EXPONENT = 65537
_YEAR = timedelta(days=365)
_FIRMWARE_VERSION = 0x2022_0101_0000_0000


@dataclass(frozen=True, slots=True)
class SoftwareMaker:
    """The authority that certifies the fleet's EKs."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(
        cls, now: datetime, called: str = "catena lab: software keys, no TPM"
    ) -> SoftwareMaker:
        """A new one, with a self-signed certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(called)
        builder = _dated(x509.CertificateBuilder(), name, name, key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        return cls(key, builder.sign(key, hashes.SHA256()))

    def endorse(self, ek: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, now: datetime) -> bytes:
        """An EK certificate in DER (TCG EK Credential Profile 2.5, clause 3)."""
        subject = _name("software EK")
        builder = _dated(x509.CertificateBuilder(), subject, self.certificate.subject, ek, now)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier(EK_USAGE)])
        use = _key_usage(is_rsa=isinstance(ek, rsa.RSAPublicKey))
        builder = builder.add_extension(usage, False).add_extension(use, True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _key_usage(*, is_rsa: bool) -> x509.KeyUsage:
    """Of an EK (EK profile, clause 3.2.14): RSA enciphers keys, ECC agrees on them."""
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=is_rsa,
        data_encipherment=False,
        key_agreement=not is_rsa,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _dated(
    builder: x509.CertificateBuilder,
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    now: datetime,
) -> x509.CertificateBuilder:
    return (
        builder.subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _YEAR)
        .not_valid_after(now + _YEAR)
    )


def endorsement_keys() -> Iterator[rsa.RSAPrivateKey]:
    """RSA-2048 keys without end, no two alike; each pair of primes is used once."""
    primes: list[int] = []
    for _ in itertools.count():
        numbers = rsa.generate_private_key(_EXPONENT, 2048).private_numbers()
        for fresh in (numbers.p, numbers.q):
            for other in primes:
                if (fresh * other).bit_length() == 2048:
                    yield _key_of(fresh, other)
            primes.append(fresh)


def _key_of(p: int, q: int) -> rsa.RSAPrivateKey:
    d = pow(_EXPONENT, -1, math.lcm(p - 1, q - 1))
    public = rsa.RSAPublicNumbers(_EXPONENT, p * q)
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
    )
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@dataclass(frozen=True, slots=True)
class Attested:
    """The fields of a TPMS_ATTEST of type quote; each can be replaced to make it hostile."""

    extra: bytes
    digest: bytes
    signer: bytes
    clock: int
    resets: int
    magic: int = tpm2.TPM_GENERATED_VALUE
    type: int = tpm2.TPM_ST_ATTEST_QUOTE
    selection: bytes = tpm2.encode_pcr_selection(_SHA256, QUOTED_PCRS)
    tail: bytes = b""

    def encode(self) -> bytes:
        """TPMS_ATTEST (TPM 2.0 Library Part 2, 10.12.12)."""
        return b"".join(
            (
                self.magic.to_bytes(4, "big"),
                self.type.to_bytes(2, "big"),
                tpm2.sized2b(self.signer),
                tpm2.sized2b(self.extra),
                self.clock.to_bytes(8, "big"),
                self.resets.to_bytes(4, "big"),
                bytes(4),
                b"\1",
                _FIRMWARE_VERSION.to_bytes(8, "big"),
                self.selection,
                tpm2.sized2b(self.digest),
                self.tail,
            )
        )


@dataclass(slots=True)
class SoftwareTpm:
    """EK and AK of one simulated node, its PCRs, and the clock that its quotes show: that goes on."""

    ek: rsa.RSAPrivateKey = field(repr=False)
    ek_certificate: bytes = field(repr=False)
    pcrs: tuple[bytes, ...] = field(repr=False)
    ak: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1()), repr=False
    )
    ak_attributes: TpmaObject = AK_ATTRIBUTES
    clock: int = 1_000_000
    resets: int = 7
    signer: bytes = b""

    def __post_init__(self) -> None:
        """The AK's qualified name is in every quote."""
        name = tpm2.parse_public(self.ak_public()).name()
        self.signer = tpm2.primary_qualified_name(name, tpm2.RH_ENDORSEMENT)

    def ek_public(self) -> bytes:
        """TPMT_PUBLIC by template L-1."""
        modulus = self.ek.public_key().public_numbers().n.to_bytes(256, "big")
        return tpm2.encode_public(
            Public(
                kind="rsa",
                name_alg=_SHA256,
                attributes=_EK_ATTRIBUTES,
                auth_policy=_EK_POLICY,
                symmetric=SymmetricDef(128, TpmAlg.CFB),
                scheme=None,
                key_bits=2048,
                raw=b"",
                exponent=_EXPONENT,
                modulus=modulus,
            )
        )

    def ak_public(self) -> bytes:
        """TPMT_PUBLIC of the attestation key."""
        point = self.ak.public_key().public_numbers()
        return tpm2.encode_public(
            Public(
                kind="ecc",
                name_alg=_SHA256,
                attributes=self.ak_attributes,
                auth_policy=b"",
                symmetric=None,
                scheme=Scheme(TpmAlg.ECDSA, _SHA256),
                key_bits=256,
                raw=b"",
                curve=EccCurve.P256,
                x=point.x.to_bytes(32, "big"),
                y=point.y.to_bytes(32, "big"),
            )
        )

    def enrolment(self) -> EnrollRequest:
        """TRUST, enrolment step 1."""
        return EnrollRequest(
            ek_certificates=(self.ek_certificate,),
            ek_public=self.ek_public(),
            ak_public=self.ak_public(),
            name_hint="software",
        )

    def activate(self, challenge: EnrollChallenge) -> ActivateRequest:
        """TPM2_ActivateCredential (enrolment step 5)."""
        name = tpm2.parse_public(self.ak_public()).name()
        secret = _open_credential(
            self.ek, name, challenge.credential_blob, challenge.encrypted_secret
        )
        return ActivateRequest(ticket=challenge.ticket, secret=secret)

    def attested(self, qualifying: bytes) -> Attested:
        """What TPM2_Quote would sign now; each quote is a little later than the last."""
        self.clock += 100
        digest = _SHA256.digest(b"".join(self.pcrs))
        return Attested(qualifying, digest, self.signer, self.clock, self.resets)

    def quote(self, qualifying: bytes) -> Quoted:
        """TPM2_Quote."""
        return self.vouch(self.attested(qualifying).encode())

    def vouch(self, quote: bytes) -> Quoted:
        """Anything as this node's quote: no TPM would sign what it did not make."""
        return Quoted(quote, self.sign(quote), self.pcrs)

    def sign(self, quote: bytes) -> bytes:
        """TPMT_SIGNATURE by ECDSA with SHA-256."""
        r, s = decode_dss_signature(self.ak.sign(quote, ec.ECDSA(hashes.SHA256())))
        head = TpmAlg.ECDSA.to_bytes(2, "big") + _SHA256.tpm_id.to_bytes(2, "big")
        halves = (tpm2.sized2b(one.to_bytes(32, "big")) for one in (r, s))
        return head + b"".join(halves)


def _open_credential(ek: rsa.RSAPrivateKey, name: bytes, blob: bytes, encrypted: bytes) -> bytes:
    """What ``keys.protect.make_credential`` wrapped for this EK and an AK of this name."""
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0")
    seed = ek.decrypt(encrypted[2:], oaep)
    integrity, ciphertext = blob[4 : 4 + _SHA256.size], blob[4 + _SHA256.size :]
    key = kdfa(_SHA256, seed, b"INTEGRITY", b"", b"", bits=256)
    if not hmac.compare_digest(hmac.digest(key, ciphertext + name, "sha256"), integrity):
        raise ForeignCredential("the credential is for another key")
    storage = kdfa(_SHA256, seed, b"STORAGE", name, b"", bits=128)
    decryptor = Cipher(AES(storage), CFB(bytes(16))).decryptor()
    return (decryptor.update(ciphertext) + decryptor.finalize())[2:]


def utc_now() -> datetime:
    """The time that a fleet's certificates are made at."""
    return datetime.now(UTC)
