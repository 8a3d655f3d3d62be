"""OCI image manifests, indexes, layouts and references (OCI Image Specification 1.1; Distribution 1.1).

=============  ==========================================================================
descriptor     ``{mediaType, digest, size, annotations?, artifactType?, platform?}``
manifest       ``{schemaVersion: 2, mediaType?, artifactType?, config, layers, subject?}``
index          ``{schemaVersion: 2, mediaType?, artifactType?, manifests, subject?}``
layout         ``oci-layout``: ``{imageLayoutVersion: "1.0.0"}``; ``index.json``: an index
reference      ``[registry/]name[:tag][@sha256:hex]``
=============  ==========================================================================

Docker's image manifest version 2, schema 2, and its manifest list have the same shape. Unknown
members are ignored, as the specification says; a name that occurs twice is an error (``ijson``), and
so is a document that is a manifest and an index at once (image-spec 1.1, "manifest.md": what
a reader takes it for must not depend on the reader). Only SHA-256 digests are accepted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from catena.errors import FormatError
from catena.formats import ijson
from catena.ids import ImageDigest

IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_CONTENT = b"{}"
MANIFESTS = frozenset({IMAGE_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({IMAGE_INDEX, DOCKER_LIST})

REF_NAME = "org.opencontainers.image.ref.name"
VERSION = "org.opencontainers.image.version"
CREATED = "org.opencontainers.image.created"
LAYOUT_VERSION = "1.0.0"

MAX_MANIFEST = 4 * 1024 * 1024
MAX_INDEX = 16 * 1024 * 1024
MAX_LAYERS = 1024
MAX_ENTRIES = 32 * 1024
MAX_ANNOTATIONS = 256

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_REGISTRY = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?::[0-9]{1,5})?\Z"
)
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[.]|_{1,2}|-{1,64})[a-z0-9]+)*\Z")
_MAX_NAME = 255
_MAX_REFERENCE = 512
_DOCKER_HUB = "docker.io"
_DOCKER_ALIAS = "index.docker.io"

Annotations = Annotated[dict[str, str], msgspec.Meta(max_length=MAX_ANNOTATIONS)]
MediaType = Annotated[str, msgspec.Meta(max_length=255)]


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What a manifest in an index is for (image-spec, "image-index.md")."""

    architecture: str
    os: str
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Content by media type, digest and size (image-spec, "descriptor.md")."""

    media_type: MediaType
    digest: str
    size: Annotated[int, msgspec.Meta(ge=0, le=2**50)]
    annotations: Annotations | None = None
    artifact_type: MediaType = ""
    platform: Platform | None = None

    @property
    def notes(self) -> Mapping[str, str]:
        """The annotations, empty if there are none."""
        return self.annotations or {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An image, or an artifact in the shape of one."""

    schema_version: int
    media_type: MediaType = ""
    artifact_type: MediaType = ""
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], msgspec.Meta(max_length=MAX_LAYERS)]
    subject: Descriptor | None = None
    annotations: Annotations | None = None

    @property
    def kind(self) -> str:
        """What an artifact is: its artifact type, or its config's media type."""
        return self.artifact_type or self.config.media_type

    def encode(self) -> bytes:
        """Compact JSON in declared order."""
        return msgspec.json.encode(self)


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Manifests of several platforms, the referrers of an image, or a layout's contents."""

    schema_version: int
    media_type: MediaType = ""
    artifact_type: MediaType = ""
    manifests: Annotated[tuple[Descriptor, ...], msgspec.Meta(max_length=MAX_ENTRIES)]
    subject: Descriptor | None = None
    annotations: Annotations | None = None

    def encode(self) -> bytes:
        """Compact JSON in declared order."""
        return msgspec.json.encode(self)


class _Layout(msgspec.Struct, frozen=True, rename="camel"):
    image_layout_version: str


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's name: ``registry/name`` with a tag, a digest, both or neither."""

    registry: str
    name: str
    tag: str = ""
    digest: ImageDigest | None = None

    @property
    def repository(self) -> str:
        """``registry/name``."""
        return f"{self.registry}/{self.name}"

    def __str__(self) -> str:
        """As it is written."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository}{tag}{digest}"


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest. Raises ``FormatError``."""
    manifest = ijson.decode(data, Manifest, limit=MAX_MANIFEST, what="image manifest")
    _check_head(manifest, MANIFESTS)
    _check_absent(data, ("manifests",))
    for one in (manifest.config, *manifest.layers, *filter(None, (manifest.subject,))):
        parse_digest(one.digest)
    return manifest


def parse_index(data: bytes, *, limit: int = MAX_MANIFEST) -> Index:
    """Read an index; a layout's own may be as large as ``MAX_INDEX``. Raises ``FormatError``."""
    index = ijson.decode(data, Index, limit=limit, what="image index")
    _check_head(index, INDEXES)
    _check_absent(data, ("config", "layers"))
    for one in (*index.manifests, *filter(None, (index.subject,))):
        parse_digest(one.digest)
    return index


def parse_document(data: bytes) -> Manifest | Index:
    """Read a manifest or an index, whichever it is by its members. Raises ``FormatError``."""
    members = ijson.decode(data, dict[str, msgspec.Raw], limit=MAX_MANIFEST, what="image manifest")
    return parse_index(data) if "manifests" in members else parse_manifest(data)


def parse_layout(data: bytes) -> None:
    """Check the ``oci-layout`` file (image-spec, "image-layout.md"). Raises ``FormatError``."""
    layout = ijson.decode(data, _Layout, limit=1024, what="oci-layout file")
    if layout.image_layout_version != LAYOUT_VERSION:
        raise FormatError(
            "image layout has another version",
            expected=LAYOUT_VERSION,
            got=ascii(layout.image_layout_version[:20]),
        )


def parse_digest(text: str) -> ImageDigest:
    """Check a digest. Raises ``FormatError`` for another algorithm than SHA-256 as well."""
    if not _DIGEST.match(text):
        raise FormatError(
            "not a digest", expected="sha256: and 64 hex digits", got=ascii(text[:80])
        )
    return ImageDigest(text)


def digest_of(content: bytes) -> ImageDigest:
    """The digest of some content."""
    return ImageDigest(f"sha256:{hashlib.sha256(content).hexdigest()}")


def parse_reference(text: str) -> Reference:
    """Read a reference; the registry must be written out, as nobody's default is meant.

    ``index.docker.io`` is another name of ``docker.io``. Raises ``FormatError``.
    """
    if len(text) > _MAX_REFERENCE:
        raise FormatError("image reference is too long", expected=f"at most {_MAX_REFERENCE}")
    rest, at, digest = text.partition("@")
    registry, slash, path = rest.partition("/")
    name, colon, tag = path.partition(":")
    good = (
        _is_registry(registry)
        and slash
        and len(name) <= _MAX_NAME
        and all(map(_COMPONENT.match, name.split("/")))
        and (not colon or _TAG.match(tag))
    )
    if not good:
        raise FormatError(
            "not an image reference",
            expected="registry/name[:tag][@sha256:digest]",
            got=ascii(text[:100]),
        )
    host = _DOCKER_HUB if registry == _DOCKER_ALIAS else registry
    return Reference(host, name, tag, parse_digest(digest) if at else None)


def _is_registry(text: str) -> bool:
    """A first component is a registry if it could be no part of a name (distribution's rule)."""
    return bool(_REGISTRY.match(text)) and ("." in text or ":" in text or text == "localhost")


def _check_head(document: Manifest | Index, accepted: frozenset[str]) -> None:
    if document.schema_version != 2:
        raise FormatError(
            "unknown schema version", expected="2", got=str(document.schema_version)[:20]
        )
    if document.media_type and document.media_type not in accepted:
        raise FormatError(
            "document says that it is of another kind",
            expected=" or ".join(sorted(accepted)),
            got=ascii(document.media_type[:80]),
        )


def _check_absent(data: bytes, names: Sequence[str]) -> None:
    """Refuse the members of the other kind of document."""
    members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    if found := [name for name in names if name in members]:
        raise FormatError("document is a manifest and an index at once", got=found[0])
