"""Every decoder that reads a node's bytes, cut at every byte and with bits flipped.

TPM structures, event logs and IMA logs have their own in ``tests/formats``; here are the rest,
and the structures once more through the appraisal that uses them. Nothing but a named error may
come out: an exception that nobody named would be an answer 500 for whoever sent the bytes.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from appraise.forged import CSR, judge, key
from catena.appraise.csr import read_csr
from catena.appraise.ek_template import UnknownEkTemplate
from catena.appraise.ekpath import EK_USAGE
from catena.appraise.endorsement import EndorsementKind, TrustRoot, TrustRoots, endorse
from catena.appraise.endorsement_refusal import EndorsementRefusal, MalformedEkCertificate
from catena.errors import FormatError, Refusal
from catena.formats.nodeapi import ActivateRequest, EnrollRequest, NonceRequest, decode
from catena.formats.tpm2 import (
    Public,
    SymmetricDef,
    TpmAlg,
    TpmaObject,
    encode_public,
    parse_public,
)
from catena.ids import HashAlg
from formats.hostile import bit_flips

NOW = datetime(2030, 6, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
MAX_SHOWN = 500


# JSON bodies -------------------------------------------------------------------------------


def bodies(exchange) -> list[msgspec.Struct]:
    evidence = exchange.evidence()
    short = {digest: content[:40] for digest, content in evidence.logs.items()}
    return [
        msgspec.structs.replace(evidence, logs=short),
        EnrollRequest(ek_certificates=(b"leaf", b"ca"), ek_public=b"ek", ak_public=b"ak"),
        ActivateRequest(ticket=b"ticket", secret=bytes(32)),
        NonceRequest(node_id="ab" * 32),
    ]


def test_a_body_cut_at_any_byte_is_malformed(exchange):
    for body in bodies(exchange):
        wire = msgspec.json.encode(body)
        for size in range(len(wire)):
            with pytest.raises(FormatError):
                decode(wire[:size], type(body))


def test_a_body_with_a_flipped_bit_is_read_or_malformed(exchange):
    for body in bodies(exchange):
        for changed in bit_flips(msgspec.json.encode(body)):
            with contextlib.suppress(FormatError):
                decode(changed, type(body))


def test_a_body_with_anything_behind_it_is_malformed(exchange):
    for body in bodies(exchange):
        with pytest.raises(FormatError):
            decode(msgspec.json.encode(body) + b"{}", type(body))


def test_what_is_said_about_a_malformed_body_is_bounded():
    with pytest.raises(FormatError) as caught:
        decode(b'{"%s": 1}' % (b"x" * 100_000), NonceRequest)
    assert len(str(caught.value)) < MAX_SHOWN


# Certificate requests ----------------------------------------------------------------------


def csr_errors(der: bytes) -> type[BaseException] | None:
    try:
        read_csr(der)
    except (FormatError, Refusal):
        return None
    except Exception as error:  # noqa: BLE001 - what the test looks for
        return type(error)
    return None


def test_a_request_cut_at_any_byte_is_malformed():
    for size in range(len(CSR)):
        with pytest.raises(FormatError):
            read_csr(CSR[:size])


def test_no_flipped_bit_makes_a_request_for_another_key():
    """Its own key signed all that counts; what its encoding leaves open changes nothing."""
    honest = read_csr(CSR).spki
    assert {spki for changed in bit_flips(CSR) if (spki := spki_of(changed))} <= {honest}


def spki_of(der: bytes) -> bytes | None:
    try:
        return read_csr(der).spki
    except (FormatError, Refusal, x509.InvalidVersion):
        return None


def test_a_request_of_another_version_is_malformed():
    assert {csr_errors(changed) for changed in bit_flips(CSR[:12])} == {None}
    version = CSR.index(b"\x02\x01\x00")
    for number in range(1, 256):
        other = CSR[: version + 2] + bytes([number]) + CSR[version + 3 :]
        assert csr_errors(other) is None


def test_a_request_with_anything_behind_it_is_malformed():
    with pytest.raises(FormatError):
        read_csr(CSR + b"\0")


# EK certificates ---------------------------------------------------------------------------

ROOT_KEY, MIDDLE_KEY = key(101), key(102)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, public, issuer, issuer_key, *extensions) -> bytes:
    builder = x509.CertificateBuilder(
        subject_name=name(subject),
        issuer_name=name(issuer),
        public_key=public,
        serial_number=7,
        not_valid_before=NOW - YEAR,
        not_valid_after=NOW + YEAR,
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.DER)


def usage(**wanted: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    names += ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{one: wanted.get(one, False) for one in names})


@pytest.fixture(scope="module")
def ek_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def ek(ek_key) -> Public:
    """The TPMT_PUBLIC that template L-1 gives."""
    public = Public(
        kind="rsa",
        name_alg=HashAlg.SHA256,
        attributes=TpmaObject.FIXED_TPM
        | TpmaObject.FIXED_PARENT
        | TpmaObject.SENSITIVE_DATA_ORIGIN
        | TpmaObject.ADMIN_WITH_POLICY
        | TpmaObject.RESTRICTED
        | TpmaObject.DECRYPT,
        auth_policy=bytes.fromhex(
            "837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa"
        ),
        symmetric=SymmetricDef(128, TpmAlg.CFB),
        scheme=None,
        key_bits=2048,
        raw=b"",
        exponent=65537,
        modulus=ek_key.public_key().public_numbers().n.to_bytes(256, "big"),
    )
    return parse_public(encode_public(public))


@pytest.fixture(scope="module")
def chain(ek_key) -> tuple[bytes, bytes]:
    """An EK certificate and the intermediate that signed it."""
    leaf = certificate(
        "ek",
        ek_key.public_key(),
        "middle",
        MIDDLE_KEY,
        usage(key_encipherment=True),
        x509.ExtendedKeyUsage([ObjectIdentifier(EK_USAGE)]),
    )
    middle = certificate(
        "middle",
        MIDDLE_KEY.public_key(),
        "root",
        ROOT_KEY,
        x509.BasicConstraints(ca=True, path_length=0),
        usage(key_cert_sign=True),
    )
    return leaf, middle


@pytest.fixture(scope="module")
def roots() -> TrustRoots:
    root = certificate(
        "root",
        ROOT_KEY.public_key(),
        "root",
        ROOT_KEY,
        x509.BasicConstraints(ca=True, path_length=None),
        usage(key_cert_sign=True),
    )
    return TrustRoots((TrustRoot("root", EndorsementKind.VENDOR, root),))


def test_an_honest_chain_endorses(chain, ek, roots):
    assert endorse(chain, ek, roots, NOW).root_name == "root"


@pytest.mark.parametrize("which", [0, 1], ids=["leaf", "intermediate"])
def test_a_chain_cut_at_any_byte_is_malformed(chain, ek, roots, which):
    for size in range(len(chain[which])):
        cut = [*chain]
        cut[which] = chain[which][:size]
        with pytest.raises(MalformedEkCertificate):
            endorse(cut, ek, roots, NOW)


@pytest.mark.parametrize("which", [0, 1], ids=["leaf", "intermediate"])
def test_no_signed_bit_of_a_chain_can_be_changed(chain, ek, roots, which):
    """Whatever a flipped bit hits, the chain is refused in a named way.

    One byte of a certificate is signed by nobody and read by nobody: how many bits of the
    signature's BIT STRING are unused.
    """
    unsigned = len(chain[which]) - _signature_size(chain[which]) - 1
    for changed in bit_flips(chain[which], step=3):
        if changed[unsigned] != 0:
            continue
        bent = [*chain]
        bent[which] = changed
        with pytest.raises((EndorsementRefusal, UnknownEkTemplate)):
            endorse(bent, ek, roots, NOW)


def _signature_size(der: bytes) -> int:
    return len(x509.load_der_x509_certificate(der).signature)


@pytest.mark.parametrize(
    "moment",
    [
        "20300101000000",
        "2030010100",
        "00000101000000Z",
        "20300101000000.5Z",
        "20300101000000+0100",
        "99991231235959Z",
    ],
)
def test_odd_times_in_a_certificate_are_judged_and_never_break(chain, ek, roots, moment):
    with pytest.raises(EndorsementRefusal):
        endorse([with_times(chain[0], moment), chain[1]], ek, roots, NOW)


def with_times(der: bytes, moment: str) -> bytes:
    """The certificate with both dates written as this GeneralizedTime; nobody signed it."""
    at = der.index(b"\x30\x1e\x17\x0d")
    times = (b"\x18" + bytes([len(moment)]) + moment.encode()) * 2
    grown = bytearray(der[:at] + b"\x30" + bytes([len(times)]) + times + der[at + 32 :])
    for place in (2, 6):  # lengths of Certificate and TBSCertificate
        length = int.from_bytes(der[place : place + 2], "big") + len(times) - 30
        grown[place : place + 2] = length.to_bytes(2, "big")
    return bytes(grown)


# TPM structures, through the appraisal -----------------------------------------------------


def test_no_bit_of_a_signature_can_be_changed(exchange, references):
    evidence = exchange.evidence()
    for changed in bit_flips(evidence.signature):
        with pytest.raises((FormatError, Refusal)) as caught:
            judge(msgspec.structs.replace(evidence, signature=changed), references)
        assert not getattr(caught.value, "authenticated", False)
