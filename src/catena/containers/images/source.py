"""What an image and its signatures are read from: layouts, registries, ACI files.

Everything that a source says is *untrusted*: names, tags, annotations and who refers to whom are
hints. Only content that was read by its digest is what the digest says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from catena.containers.images.blobs import Blobs
from catena.errors import NotFound, Refusal
from catena.formats.oci import Manifest
from catena.ids import ImageDigest

COSIGN_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGSTORE_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
NOTATION_JWS = "application/jose+json"
NOTATION_COSE = "application/cose"
SIMPLE_SIGNING = "application/vnd.catena.simple-signing.v1+pgp"
ACI_SIGNATURE = "application/vnd.catena.aci-signature.v1+pgp"
"""Media types of signatures. The last two have none of their own; they never travel."""

SIGNATURES = frozenset(
    {COSIGN_PAYLOAD, SIGSTORE_BUNDLE, NOTATION_JWS, NOTATION_COSE, SIMPLE_SIGNING, ACI_SIGNATURE}
)
LAUNCH_POLICY = "application/vnd.catena.launch-policy.v1+dsse"
"""Media type and artifact type of a launch policy's envelope."""

MAX_SIGNATURE = 1024 * 1024
MAX_SIGNATURES = 64
"""How many signatures, and launch policies, of one image are looked at."""


class UnknownImage(NotFound):
    """A reference that its source does not have."""

    code = "image-unknown"
    remedy = "Check the name and the tag; `catena container fetch IMAGE` copies an image here."


class MovedTag(Refusal):
    """A tag points at another image than the digest beside it says."""

    code = "moved-tag"
    remedy = "Find out who moved the tag. Use the digest that was verified, or verify the new one."


class TooManySignatures(Refusal):
    """More signatures than anybody needs: the work of judging them is an attack in itself."""

    code = "too-many-signatures"
    remedy = "Remove the signatures that nobody needs from the image's repository."


@dataclass(frozen=True, slots=True)
class SignatureArtifact:
    """One signature as it was found, *untrusted*.

    ``media_type`` says what ``content`` is (one of ``SIGNATURES``). ``annotations`` are those of
    the layer that held it: cosign's older format keeps the signature there, beside the payload in
    ``content``. ``detached`` is what a detached signature covers if that is not named by
    digest in the signature itself (an ACI's whole file). ``found`` says where it was, for people.
    """

    media_type: str
    content: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)
    detached: bytes = b""
    found: str = ""


class ImageSource(Protocol):
    """Where images are. Every answer but ``blobs.read`` is a hint."""

    @property
    def blobs(self) -> Blobs:
        """The content."""

    def resolve(self, reference: str) -> ImageDigest:
        """The digest that a reference names now.

        With both a tag and a digest, the tag must point at the digest. Raises ``UnknownImage``,
        ``MovedTag`` or ``FormatError``.
        """

    def repositories(self, image: ImageDigest) -> tuple[str, ...]:
        """Names under which the image is known, without tags: ``registry/name``."""

    def indexes(self, image: ImageDigest) -> tuple[ImageDigest, ...]:
        """Image indexes (of several platforms) that may list the image."""

    def signature_manifests(self, image: ImageDigest) -> Iterable[SignatureArtifact]:
        """Everything that claims to be a signature of the image. Raises ``TooManySignatures``."""

    def launch_policies(self, image: ImageDigest) -> Iterable[bytes]:
        """Envelopes (``formats.dsse``) of launch policies that claim to be the image's."""


class Repository(ImageSource, Protocol):
    """A source that can be copied from. Names are those of the source: whole references, or tags."""

    def manifest(self, digest: str) -> bytes:
        """A manifest or index, checked. Raises ``MissingBlob`` or ``AlteredBlob``."""

    def tagged(self, name: str) -> bytes | None:
        """The manifest that has the name, or None."""

    def sibling(self, reference: str, tag: str) -> str:
        """The name of another tag in the repository of ``reference``."""

    def referring(self, image: ImageDigest) -> Iterable[tuple[str, Manifest]]:
        """Digest and manifest of everything that refers to the image. Raises ``TooManySignatures``."""

    def stream(self, digest: str) -> Iterator[bytes]:
        """Content in pieces, *unchecked*. Raises ``MissingBlob``."""


class ImageStore(Repository, Protocol):
    """A source that can be written."""

    def add(self, content: bytes) -> ImageDigest:
        """Store content."""

    def put_manifest(self, content: bytes, media_type: str, name: str) -> ImageDigest:
        """Store a manifest and name it."""

    def attach(self, reference: str, image: ImageDigest, manifest: bytes, kind: str) -> None:
        """Store the manifest of an artifact whose subject is the image, so that it is found.

        Not guaranteed: that of two that are attached in the same instant both are listed, where
        the list is a tag.
        """
