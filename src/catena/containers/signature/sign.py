"""Signing images in the formats of cosign and notation, and attaching launch policies.

Whatever is written here the real ``cosign`` or ``notation`` verifies. Cosign's formats name the
repository, so that the signature does not count elsewhere; its bundles have no place for it but an
annotation. The time of signing goes along as ``org.opencontainers.image.created``. Notation's name
no repository.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from cryptography import x509

from catena.containers.images import attached
from catena.containers.images.source import (
    COSIGN_PAYLOAD,
    LAUNCH_POLICY,
    NOTATION_COSE,
    NOTATION_JWS,
    SIGSTORE_BUNDLE,
    ImageStore,
)
from catena.containers.launch.document import seal_launch_policy
from catena.containers.signature import cosign, notation
from catena.containers.signature.proof import REPOSITORY
from catena.containers.signature.result import SignatureFormat
from catena.errors import UsageError
from catena.formats import dsse, ijson, oci, sigstore, simplesigning
from catena.formats import notation as documents
from catena.formats.launchpolicy import LaunchPolicy
from catena.formats.oci import Descriptor, Manifest
from catena.ids import ImageDigest
from catena.keys.signer import Signer

MAX_ANNOTATIONS = 64
_THUMBPRINTS = "io.cncf.notary.x509chain.thumbprint#S256"
_NEVER = "0001-01-01T00:00:00Z"
_CONTENT = "dev.sigstore.bundle.content"
_PREDICATE = "dev.sigstore.bundle.predicateType"


class UnsupportedFormat(UsageError):
    """A format that nobody signs in here."""

    code = "format-not-signable"
    remedy = "Choose one of the formats that --help lists."


class TooManyAnnotations(UsageError):
    """More annotations than a signature may have."""

    code = "too-many-annotations"
    remedy = f"Give at most {MAX_ANNOTATIONS}."


class NoChain(UsageError):
    """A format that needs certificates, and a key alone."""

    code = "no-certificate-chain"
    remedy = "Give the chain, from the key's own certificate to its root: --certificates FILE."


class NoImage(UsageError):
    """A reference that names no image of the store."""

    code = "not-an-image"
    remedy = "Name an image or an image index."


@dataclass(frozen=True, slots=True)
class Target:
    """What is signed: ``image`` in a store, where ``name`` is a name of it, for ``repository``."""

    store: ImageStore
    name: str
    image: ImageDigest
    repository: str


@dataclass(frozen=True, slots=True)
class SignedImage:
    """What was signed: the image, for which repository, how, by which key (SHA-256 of its SPKI)."""

    image: ImageDigest
    repository: str
    format: SignatureFormat
    key: str
    annotations: Mapping[str, str]


def target_of(store: ImageStore, name: str, repository: str) -> Target:
    """What ``name`` means in the store now, to be signed for ``repository`` (``registry/name``)."""
    return Target(store, name, store.resolve(name), repository)


def sign_image(
    target: Target,
    signer: Signer,
    kind: SignatureFormat,
    *,
    annotations: Mapping[str, str],
    now: datetime,
    chain: Sequence[x509.Certificate] = (),
) -> SignedImage:
    """Sign an image; ``chain``, from the signer's certificate to its root, is for notation's formats.

    Raises ``UnsupportedFormat``, ``NoChain``, ``TooManyAnnotations``, ``UnsupportedSigner``, or what the
    store raises.
    """
    if len(annotations) > MAX_ANNOTATIONS:
        raise TooManyAnnotations("too many annotations", got=f"{len(annotations)}")
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    signed = {oci.CREATED: stamp, **annotations}
    match kind:
        case SignatureFormat.COSIGN:
            _sign_payload(target, signed, signer)
        case SignatureFormat.COSIGN_BUNDLE:
            signed = {REPOSITORY: target.repository, **signed}
            _sign_statement(target, signed, signer)
        case SignatureFormat.NOTATION_JWS | SignatureFormat.NOTATION_COSE:
            signed = dict(annotations)
            _sign_envelope(target, kind, signed, signer, chain, now=now)
        case _:
            raise UnsupportedFormat(f"images are not signed as {kind} here")
    return SignedImage(target.image, target.repository, kind, signer.key_id, signed)


def attach_launch_policy(target: Target, launch: LaunchPolicy, signer: Signer) -> None:
    """Sign a launch policy for the image and attach it. Raises ``UnusableLaunchPolicy``."""
    _attach(target, seal_launch_policy(signer, launch, [target.image]), LAUNCH_POLICY, {})


def _sign_payload(target: Target, annotations: Mapping[str, str], signer: Signer) -> None:
    """The older format: one more layer of the manifest under the signature's tag."""
    store = target.store
    payload = simplesigning.encode(target.image, target.repository, annotations)
    signature = base64.b64encode(signer.sign(payload)).decode()
    layer = Descriptor(
        media_type=COSIGN_PAYLOAD,
        digest=store.add(payload),
        size=len(payload),
        annotations={cosign.SIGNATURE: signature},
    )
    tag = store.sibling(target.name, attached.signature_tag(target.image))
    before = store.tagged(tag)
    layers = (*(oci.parse_manifest(before).layers if before is not None else ()), layer)
    config = _config(layers)
    described = Descriptor(media_type=oci.IMAGE_CONFIG, digest=store.add(config), size=len(config))
    manifest = Manifest(
        schema_version=2, media_type=oci.IMAGE_MANIFEST, config=described, layers=layers
    )
    store.put_manifest(manifest.encode(), oci.IMAGE_MANIFEST, tag)


def _config(layers: tuple[Descriptor, ...]) -> bytes:
    """The config of an image whose layers are payloads, as cosign's library makes it."""
    return msgspec.json.encode(
        {
            "architecture": "",
            "created": _NEVER,
            "history": [{"created": _NEVER}] * len(layers),
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [one.digest for one in layers]},
            "config": {},
        }
    )


def _sign_statement(target: Target, annotations: Mapping[str, str], signer: Signer) -> None:
    """A bundle that refers to the image."""
    payload = sigstore.statement(_hex(target.image), annotations)
    signature = signer.sign(dsse.pae(dsse.IN_TOTO, payload))
    hint = base64.b64encode(bytes.fromhex(signer.key_id)).decode()
    notes = {
        _CONTENT: "dsse-envelope",
        _PREDICATE: sigstore.SIGN_PREDICATE,
        oci.CREATED: annotations[oci.CREATED],
    }
    _attach(target, sigstore.encode(payload, signature, hint), SIGSTORE_BUNDLE, notes)


def _sign_envelope(
    target: Target,
    kind: SignatureFormat,
    annotations: dict[str, str],
    signer: Signer,
    chain: Sequence[x509.Certificate],
    *,
    now: datetime,
) -> None:
    """Notation's envelope over the image's descriptor, in a manifest that says so by its config."""
    if not chain:
        raise NoChain("notation signs with a certificate")
    subject = _subject(target)
    covered = documents.Descriptor(subject.media_type, target.image, subject.size, annotations)
    if kind is SignatureFormat.NOTATION_JWS:
        media_type, content = NOTATION_JWS, notation.sign_jws(signer, chain, covered, now)
    else:
        media_type, content = NOTATION_COSE, notation.sign_cose(signer, chain, covered, now)
    notes = {_THUMBPRINTS: notation.thumbprints(chain)}
    _attach(target, content, media_type, notes, config=documents.ARTIFACT_TYPE)


def _attach(
    target: Target, content: bytes, kind: str, notes: Mapping[str, str], config: str = ""
) -> None:
    """A manifest about the image. The type of the artifact is ``config``'s, if one is given."""
    store = target.store
    manifest = Manifest(
        schema_version=2,
        media_type=oci.IMAGE_MANIFEST,
        artifact_type="" if config else kind,
        config=Descriptor(
            media_type=config or oci.EMPTY,
            digest=store.add(oci.EMPTY_CONTENT),
            size=len(oci.EMPTY_CONTENT),
        ),
        layers=(Descriptor(media_type=kind, digest=store.add(content), size=len(content)),),
        subject=_subject(target),
        annotations=dict(notes) or None,
    )
    store.attach(target.name, target.image, manifest.encode(), config or kind)


def _subject(target: Target) -> Descriptor:
    """The image's descriptor; what its manifest does not say about itself is OCI's default."""
    content = target.store.manifest(target.image)
    head = ijson.decode(content, _Head, limit=oci.MAX_MANIFEST, what="image manifest")
    kind = head.media_type or (oci.IMAGE_INDEX if bytes(head.manifests) else oci.IMAGE_MANIFEST)
    if kind not in oci.MANIFESTS | oci.INDEXES:
        raise NoImage("reference names something else than an image", got=ascii(kind[:80]))
    return Descriptor(media_type=kind, digest=target.image, size=len(content))


class _Head(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str = ""
    manifests: msgspec.Raw = msgspec.Raw()


def _hex(image: ImageDigest) -> str:
    return image.partition(":")[2]
