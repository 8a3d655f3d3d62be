"""The certificate request that an attestation carries (PKCS #10, RFC 2986; TRUST step 2).

Only its public key is used: names in it are the node's own word and are not read.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from catena.appraise.refusal import UnauthenticatedRefusal
from catena.errors import FormatError
from catena.formats.certificate import CERTIFICATE_FAULTS


class UnprovenCsrKey(UnauthenticatedRefusal):
    """A request that its own key did not sign: the sender may not hold the private key."""

    code = "csr-unproven"
    step = "c"


class WrongCsrKey(UnauthenticatedRefusal):
    """A request for another kind of key than P-256."""

    code = "csr-wrong-key"
    remedy = "Make a P-256 key for the certificate request."
    step = "c"


@dataclass(frozen=True, slots=True)
class RequestedKey:
    """The key a certificate is asked for; ``spki`` is its SubjectPublicKeyInfo in DER."""

    public_key: ec.EllipticCurvePublicKey
    spki: bytes


def read_csr(der: bytes) -> RequestedKey:
    """Step 5c: the request's key, held by whoever made the request. Raises ``FormatError``."""
    try:
        csr = x509.load_der_x509_csr(der)
        key = csr.public_key()
    except CERTIFICATE_FAULTS as error:
        raise FormatError("not a certificate request") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise WrongCsrKey("the certificate request is not for a P-256 key")
    _check_possession(csr)
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return RequestedKey(key, spki)


def _check_possession(csr: x509.CertificateSigningRequest) -> None:
    try:
        holds = csr.is_signature_valid
    except (InvalidSignature, *CERTIFICATE_FAULTS):
        holds = False
    if not holds:
        raise UnprovenCsrKey("the certificate request is not signed by its own key")
