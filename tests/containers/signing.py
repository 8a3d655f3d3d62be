"""Publishers, policies and stores for tests of image signatures."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from catena.containers.images.folder import BlobFolder
from catena.containers.images.layout import Layout
from catena.containers.images.source import COSIGN_PAYLOAD, SignatureArtifact
from catena.containers.signature import cosign
from catena.containers.signature.policy import CompiledPolicy, compile_policy
from catena.containers.signature.result import SignatureFormat, VerifiedImage
from catena.containers.signature.sign import SignedImage, sign_image, target_of
from catena.containers.signature.verify import verify_image
from catena.formats import simplesigning
from catena.formats.containerpolicy import (
    CertificateIdentity,
    ContainerPolicy,
    Publisher,
    Scope,
)
from catena.ids import ImageDigest
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, public_pem
from container_images import tiny_layout

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
REPOSITORY = "registry.example.com/team/app"
OTHER = "registry.example.com/team/other"
NAME = f"{REPOSITORY}:1"
COSIGN = SignatureFormat.COSIGN
BUNDLE = SignatureFormat.COSIGN_BUNDLE


def signer(kind: KeyAlgorithm = KeyAlgorithm.ECDSA_P256) -> PrivateKeySigner:
    return PrivateKeySigner(generate_key(kind))


def pem(key: PrivateKeySigner) -> str:
    return public_pem(key.public_key).decode()


def policy(
    keys: dict[str, Sequence[str]], scopes: Sequence[Scope], **identities: CertificateIdentity
) -> CompiledPolicy:
    """A policy of publishers by name, with PEM keys or identities."""
    publishers = [Publisher(name=name, keys=tuple(pems)) for name, pems in keys.items()]
    publishers += [
        Publisher(name=name, identities=(identity,)) for name, identity in identities.items()
    ]
    document = ContainerPolicy(
        name="test", version=1, publishers=tuple(publishers), scopes=tuple(scopes)
    )
    return compile_policy(document)


def one_scope(key: PrivateKeySigner, **scope: object) -> CompiledPolicy:
    """Team signs for ``REPOSITORY``."""
    rule = {"repository": REPOSITORY, "publishers": ("team",), **scope}
    return policy({"team": [pem(key)]}, [Scope(**rule)])


@dataclass
class Store:
    """An image store with one image, ``NAME``."""

    layout: Layout
    image: ImageDigest

    def sign(
        self,
        key: PrivateKeySigner,
        kind: SignatureFormat = COSIGN,
        repository: str = REPOSITORY,
        name: str = NAME,
        now: datetime = NOW,
        **annotations: str,
    ) -> SignedImage:
        target = target_of(self.layout, name, repository)
        return sign_image(target, key, kind, annotations=annotations, now=now)

    def verify(
        self, rules: CompiledPolicy, repository: str = REPOSITORY, now: datetime = NOW
    ) -> VerifiedImage:
        return verify_image(self.layout, self.image, repository, rules, now)


def store(folder: Path, name: str = NAME, text: str = "hello") -> Store:
    return Store(Layout(folder), ImageDigest(tiny_layout(folder, name, text)))


@dataclass
class Given:
    """A source that holds nothing but signatures: for vectors of other projects."""

    artifacts: Iterable[SignatureArtifact] = ()
    blobs: BlobFolder = field(default_factory=BlobFolder)

    def resolve(self, reference):
        raise NotImplementedError

    def repositories(self, image):
        return ()

    def indexes(self, image):
        return ()

    def signature_manifests(self, image):
        return self.artifacts

    def launch_policies(self, image):
        return ()


# Certificates ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    authority: bool = False,
    path_length: int | None = None,
    valid: tuple[datetime, datetime] = (NOW - timedelta(days=1), NOW + timedelta(days=1)),
    usages: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.CODE_SIGNING,),
    san: str = "",
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    digital_signature: bool = True,
    cert_sign: bool | None = None,
) -> Issued:
    """A certificate of ``name`` under ``issuer``, or self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    above = issuer.certificate.subject if issuer else subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(above)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
        .add_extension(x509.BasicConstraints(authority, path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=digital_signature,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=authority if cert_sign is None else cert_sign,
                crl_sign=authority,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
    if usages and not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if san:
        names = x509.SubjectAlternativeName([x509.RFC822Name(san)])
        builder = builder.add_extension(names, critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


# Signatures without a store -----------------------------------------------------------------


def legacy_artifact(key: PrivateKeySigner, payload: bytes, **notes: str) -> SignatureArtifact:
    """A payload with a signature of it, as a layer of cosign's older format."""
    signature = base64.b64encode(key.sign(payload)).decode()
    return SignatureArtifact(COSIGN_PAYLOAD, payload, {cosign.SIGNATURE: signature, **notes})


def legacy_given(
    key: PrivateKeySigner, image: ImageDigest, reference: str
) -> list[SignatureArtifact]:
    """One signature of an image under a reference."""
    return [legacy_artifact(key, simplesigning.encode(image, reference, {}))]
