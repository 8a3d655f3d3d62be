"""Authenticode signatures on PE images: what UEFI Secure Boot checks.

Sources: "Windows Authenticode Portable Executable Signature Format" 1.0; RFC 2315 (PKCS#7 1.5);
UEFI 2.10 section 32.2.4. A signature is a ``WIN_CERTIFICATE`` around SignedData, whose content is
an ``SpcIndirectDataContent`` with the image's digest. Signatures made here carry no date, so the
same image and key give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from catena.errors import Refusal, UsageError
from catena.formats import pe
from catena.formats.pe import PKCS_SIGNED_DATA, PeImage
from catena.ids import HashAlg
from catena.keys.signer import (
    ForgedSignature,
    KeyAlgorithm,
    Signer,
    algorithm_of,
    key_id_of,
    verify_signature,
)

_Layout = list[tuple[object, ...]]
"""How asn1crypto wants a structure described: names, types, tags."""

_SIGNED_DATA = "1.2.840.113549.1.7.2"
_SPC_INDIRECT_DATA = "1.3.6.1.4.1.311.2.1.4"
_SPC_PE_IMAGE_DATA = "1.3.6.1.4.1.311.2.1.15"
_SET_OF = 0x31
MAX_SIGNATURE = 32 * 1024
"""Reading an object identifier costs the square of its length; real signatures have up to 16 KB."""


class UnsignedImage(Refusal):
    """An image without a signature."""

    code = "unsigned-image"
    remedy = "Sign the image with db, or boot a release that is signed."


class ForgedImage(Refusal):
    """A signature that is damaged, or was not made over what it carries."""

    code = "forged-image"
    remedy = "Do not boot the image; obtain it again from its publisher."


class DigestMismatch(Refusal):
    """A signature over another image than this one."""

    code = "image-digest-mismatch"
    remedy = "The image was changed after signing; obtain it again from its publisher."


class ForeignSigner(Refusal):
    """A signature by a certificate that is not among the accepted ones."""

    code = "foreign-signer"
    remedy = "Check which db certificate should have signed the image."


class UnsuitableKey(UsageError):
    """A key that firmware would not accept signatures of."""

    code = "unsuitable-key"
    remedy = "Sign boot code with the RSA-2048 key `db`."


class UnsuitableImage(UsageError):
    """An image that must not be signed again."""

    code = "unsuitable-image"
    remedy = "Sign the unsigned image."


class _SpcAttribute(core.Sequence):  # type: ignore[misc]  # asn1crypto has no types
    _fields: ClassVar[_Layout] = [("type", core.ObjectIdentifier), ("value", core.Any)]


class _DigestInfo(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar[_Layout] = [
        ("algorithm", algos.DigestAlgorithm),
        ("digest", core.OctetString),
    ]


class _SpcIndirectData(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar[_Layout] = [("data", _SpcAttribute), ("digest_info", _DigestInfo)]


class _SpcString(core.Choice):  # type: ignore[misc]
    _alternatives: ClassVar[_Layout] = [
        ("unicode", core.BMPString, {"implicit": 0}),
        ("ascii", core.IA5String, {"implicit": 1}),
    ]


class _SpcLink(core.Choice):  # type: ignore[misc]
    _alternatives: ClassVar[_Layout] = [
        ("url", core.IA5String, {"implicit": 0}),
        ("moniker", core.Any, {"implicit": 1}),
        ("file", _SpcString, {"explicit": 2}),
    ]


class _SpcPeImageData(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar[_Layout] = [("flags", core.BitString), ("file", _SpcLink, {"explicit": 0})]


class _SpcContentInfo(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar[_Layout] = [
        ("content_type", core.ObjectIdentifier),
        ("content", _SpcIndirectData, {"explicit": 0}),
    ]


class _SignedData(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar[_Layout] = [
        ("version", core.Integer),
        ("digest_algorithms", cms.DigestAlgorithms),
        ("content_info", _SpcContentInfo),
        ("certificates", cms.CertificateSet, {"implicit": 0, "optional": True}),
        ("crls", cms.RevocationInfoChoices, {"implicit": 1, "optional": True}),
        ("signer_infos", cms.SignerInfos),
    ]


class _ContentInfo(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar[_Layout] = [
        ("content_type", core.ObjectIdentifier),
        ("content", _SignedData, {"explicit": 0}),
    ]


def sign(image: bytes, signer: Signer, certificate: x509.Certificate) -> bytes:
    """The image with a signature appended. Raises ``FormatError`` or ``UnsuitableKey``."""
    if signer.algorithm is not KeyAlgorithm.RSA_2048:
        raise UnsuitableKey("firmware needs an RSA key", expected="rsa-2048", got=signer.algorithm)
    if signer.public_key != certificate.public_key():
        raise UnsuitableKey("certificate belongs to another key", got=signer.key_id[:16])
    parsed = pe.parse(image)
    if parsed.certificates_size:
        raise UnsuitableImage("image is signed already")
    # Tools disagree on hashing an unaligned tail; padding first makes it aligned.
    padded = image + bytes(-len(image) % pe.CERTIFICATE_ALIGNMENT)
    digest = pe.parse(padded).authenticode(HashAlg.SHA256)
    content = _win_certificate(_signed_data(digest, signer, certificate))
    return _with_table(padded, parsed, content)


def verify(image: PeImage, certificates: Sequence[x509.Certificate]) -> x509.Certificate:
    """The certificate, out of ``certificates``, under which the image is validly signed.

    Only direct signatures count: firmware would also accept issued certificates, catena's
    releases never use them. Raises ``UnsignedImage``, ``ForgedImage``, ``DigestMismatch`` or
    ``ForeignSigner``, for the last signature that was tried.
    """
    signatures = [one.content for one in image.certificates() if one.type == PKCS_SIGNED_DATA]
    failure: Refusal = UnsignedImage("image carries no signature")
    for signature in signatures:
        try:
            return _verify_one(image, signature, certificates)
        except Refusal as refusal:
            failure = refusal
    raise failure


def _verify_one(
    image: PeImage, signature: bytes, certificates: Sequence[x509.Certificate]
) -> x509.Certificate:
    """One signature, in the order of Authenticode's "Verifying"."""
    # (1) the structure: one signer, SHA-256, SpcIndirectDataContent
    if len(signature) > MAX_SIGNATURE:
        raise ForgedImage(
            "image signature is too long", expected=f"{MAX_SIGNATURE}", got=f"{len(signature)}"
        )
    try:
        outer = _ContentInfo.load(signature)
        signed, outer_type = outer["content"], outer["content_type"].native
        content_info, infos = signed["content_info"], signed["signer_infos"]
        content = content_info["content"]
        digest_info = content["digest_info"]
        hash_name = digest_info["algorithm"]["algorithm"].native
        claimed = digest_info["digest"].native
        info = infos[0]
        identifier = info["sid"].chosen
        issuer, serial = identifier["issuer"].dump(), identifier["serial_number"].native
        attributes = info["signed_attrs"]
        by_type = {one["type"].native: one["values"] for one in attributes}
        message_digest = by_type["message_digest"][0].native
        attributes_type = by_type["content_type"][0].dotted
        value = info["signature"].native
        signer_hash = info["digest_algorithm"]["algorithm"].native
        # The library parses a field when it is first asked for, so everything is asked for here.
        types = {attributes_type, content_info["content_type"].native}
        content_bytes = content.contents
        signed_attributes = bytes([_SET_OF]) + attributes.dump()[1:]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ForgedImage("image signature is malformed") from error
    kind = (len(infos), outer_type, hash_name, signer_hash)
    if kind != (1, _SIGNED_DATA, "sha256", "sha256"):
        raise ForgedImage("image signature is of an unsupported kind", got=ascii(hash_name)[:40])
    # (2) the digest in the signature is the image's
    actual = image.authenticode(HashAlg.SHA256)
    if claimed != actual:
        raise DigestMismatch(
            "image is not the one that was signed", expected=claimed.hex(), got=actual.hex()
        )
    # (3) the signer is one of ours
    certificate = _find(certificates, issuer, serial)
    # (4) the signed attributes speak of this content
    if types != {_SPC_INDIRECT_DATA} or message_digest != HashAlg.SHA256.digest(content_bytes):
        raise ForgedImage("image signature does not cover its content")
    # (5) the signature over the attributes holds
    public_key = certificate.public_key()
    algorithm_of(public_key)
    try:
        verify_signature(public_key, value, signed_attributes)  # type: ignore[arg-type]  # narrowed by algorithm_of
    except ForgedSignature as error:
        raise ForgedImage("image signature does not hold") from error
    return certificate


def _find(certificates: Sequence[x509.Certificate], issuer: bytes, serial: int) -> x509.Certificate:
    for certificate in certificates:
        if certificate.serial_number == serial and certificate.issuer.public_bytes() == issuer:
            return certificate
    raise ForeignSigner(
        "image is signed by an unknown certificate",
        expected=", ".join(key_id_of(one.public_key())[:16] for one in certificates),  # type: ignore[arg-type]
    )


def _signed_data(digest: bytes, signer: Signer, certificate: x509.Certificate) -> bytes:
    content = _indirect_data(digest)
    own = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    sha256 = algos.DigestAlgorithm({"algorithm": "sha256"})
    attributes = cms.CMSAttributes(
        [
            {"type": "content_type", "values": [_SPC_INDIRECT_DATA]},
            {"type": "message_digest", "values": [HashAlg.SHA256.digest(content.contents)]},
        ]
    )
    info = cms.SignerInfo(
        {
            "version": "v1",
            "sid": {
                "issuer_and_serial_number": {
                    "issuer": own.issuer,
                    "serial_number": own.serial_number,
                }
            },
            "digest_algorithm": sha256,
            "signed_attrs": attributes,
            "signature_algorithm": {"algorithm": "rsassa_pkcs1v15"},
            "signature": signer.sign(attributes.dump()),
        }
    )
    signed = _SignedData(
        {
            "version": 1,
            "digest_algorithms": [sha256],
            "content_info": {"content_type": _SPC_INDIRECT_DATA, "content": content},
            "certificates": [own],
            "signer_infos": [info],
        }
    )
    encoded: bytes = _ContentInfo({"content_type": _SIGNED_DATA, "content": signed}).dump()
    return encoded


def _indirect_data(digest: bytes) -> _SpcIndirectData:
    image_data = _SpcPeImageData(
        {"flags": (), "file": _SpcLink(name="file", value=_SpcString(name="unicode", value=""))}
    )
    content = _SpcIndirectData(
        {
            "data": {"type": _SPC_PE_IMAGE_DATA, "value": image_data},
            "digest_info": {"algorithm": {"algorithm": "sha256"}, "digest": digest},
        }
    )
    content.dump()  # encodes, so that .contents is what gets signed
    return content


def _win_certificate(content: bytes) -> bytes:
    """WIN_CERTIFICATE, padded to eight bytes; its length field includes the padding."""
    padded = content + bytes(-len(content) % pe.CERTIFICATE_ALIGNMENT)
    return (
        (len(padded) + 8).to_bytes(4, "little")
        + pe.CERTIFICATE_REVISION.to_bytes(2, "little")
        + PKCS_SIGNED_DATA.to_bytes(2, "little")
        + padded
    )


def _with_table(image: bytes, parsed: PeImage, table: bytes) -> bytes:
    entry = len(image).to_bytes(4, "little") + len(table).to_bytes(4, "little")
    return image[: parsed.security_at] + entry + image[parsed.security_at + 8 :] + table
