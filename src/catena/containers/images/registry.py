"""A registry's repository as a source of images (OCI Distribution 1.1), read and written.

Everything is checked against its digest as it arrives. Referrers come from the registry's own list, or from the
index under the tag ``sha256-<hex>`` where it has none; writing keeps that index for such registries.

Only commands of people use this: a node's gate reads the image store (``images.layout``).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from catena.containers.images import attached
from catena.containers.images.blobs import MissingBlob
from catena.containers.images.folder import check_digest
from catena.containers.images.source import MovedTag, SignatureArtifact, UnknownImage
from catena.containers.images.transport import Answer, RegistryUnreachable, Transport
from catena.errors import FormatError, UsageError
from catena.formats import oci
from catena.formats.oci import Descriptor, Index
from catena.ids import ImageDigest

_ACCEPT = ", ".join(sorted(oci.MANIFESTS | oci.INDEXES))


class OtherSource(UsageError):
    """A reference into another repository than the one that is open."""

    code = "other-source"
    remedy = "Open the repository that the reference names."


class RegistryBlobs:
    """The repository's content."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name

    def read(self, digest: str, limit: int) -> bytes:
        """Checked content, a manifest's as well. Raises ``MissingBlob``, ``AlteredBlob``, ``FormatError``."""
        oci.parse_digest(digest)
        answer = self._get("blobs", digest, "*/*", limit)
        if answer.status == 404:
            answer = self._get("manifests", digest, _ACCEPT, limit)
        content = _content(answer, digest)
        check_digest(content, digest)
        return content

    def open(self, digest: str) -> BinaryIO:
        """Unchecked content, held in memory: for layers use ``stream``."""
        return io.BytesIO(self.read(digest, oci.MAX_MANIFEST))

    def stream(self, digest: str) -> Iterator[bytes]:
        """Unchecked content in pieces. Raises ``MissingBlob``."""
        oci.parse_digest(digest)
        with self._transport.stream(f"{self._name}/blobs/{digest}") as response:
            if response.status_code != 200:
                raise _missing(response.status_code, digest)
            yield from response.iter_bytes()

    def _get(self, kind: str, digest: str, accept: str, limit: int) -> Answer:
        return self._transport.get(f"{self._name}/{kind}/{digest}", accept=accept, limit=limit)


class Registry:
    """One repository of a registry as an ``ImageSource`` that can also be written."""

    def __init__(self, transport: Transport, repository: str) -> None:
        reference = oci.parse_reference(repository)
        self._repository = reference.repository
        self._name = reference.name
        self._transport = transport
        self._indexes: dict[ImageDigest, frozenset[str]] = {}
        self.blobs = RegistryBlobs(transport, reference.name)

    # What an ImageSource answers --------------------------------------------------------------

    def resolve(self, reference: str) -> ImageDigest:
        """The digest that a reference names now. Raises as ``ImageSource`` says."""
        asked = oci.parse_reference(reference)
        if asked.repository != self._repository:
            raise OtherSource("another repository is open", expected=self._repository)
        if asked.tag or not asked.digest:
            content = self.tagged(f"{self._repository}:{asked.tag or 'latest'}")
            if content is None:
                raise UnknownImage("the registry has no such image", got=str(asked)[:200])
        else:
            content = self._known(asked.digest)
        found = oci.digest_of(content)
        if asked.digest not in {None, found}:
            raise MovedTag("tag names another image now", expected=asked.digest, got=found)
        self._remember(found, content)
        return found

    def repositories(self, image: ImageDigest) -> tuple[str, ...]:
        """The repository that is open."""
        del image
        return (self._repository,)

    def indexes(self, image: ImageDigest) -> tuple[ImageDigest, ...]:
        """Indexes that were resolved here and list the image."""
        return tuple(digest for digest, listed in self._indexes.items() if image in listed)

    def signature_manifests(self, image: ImageDigest) -> Iterator[SignatureArtifact]:
        """Signatures by tag, then by subject. Raises ``TooManySignatures``."""
        return attached.bounded(self._signatures(image))

    def launch_policies(self, image: ImageDigest) -> Iterator[bytes]:
        """Launch policies by subject. Raises ``TooManySignatures``."""
        return attached.launch_policies(self.blobs, self.referring(image))

    def referring(self, image: ImageDigest) -> Iterator[tuple[str, oci.Manifest]]:
        """Digest and manifest of everything that refers to the image."""
        return attached.referring(self.manifest, self._referrers(image), image)

    def stream(self, digest: str) -> Iterator[bytes]:
        """Content in pieces, *unchecked*. Raises ``MissingBlob``."""
        return self.blobs.stream(digest)

    def manifest(self, digest: str) -> bytes:
        """A manifest or index, checked. Raises ``MissingBlob``, ``AlteredBlob``."""
        content = _content(self._manifest(oci.parse_digest(digest)), digest)
        check_digest(content, digest)
        return content

    # Writing --------------------------------------------------------------------------------

    def add(self, content: bytes) -> ImageDigest:
        """Upload content, unless it is there. Raises ``RegistryUnreachable``, ``RegistryDenied``."""
        digest = oci.digest_of(content)
        if self._transport.send("HEAD", f"{self._name}/blobs/{digest}").status == 200:
            return digest
        begun = self._transport.send("POST", f"{self._name}/blobs/uploads/")
        location = begun.headers.get("Location", "")
        if begun.status != 202 or not location:
            raise _unexpected(begun)
        joined = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        done = self._transport.send("PUT", joined, content, media_type="application/octet-stream")
        if done.status != 201:
            raise _unexpected(done)
        return digest

    def put_manifest(self, content: bytes, media_type: str, name: str) -> ImageDigest:
        """Upload a manifest under a name of this repository, or by its digest if ``name`` is empty."""
        digest = oci.digest_of(content)
        tag = oci.parse_reference(name).tag if name else digest
        done = self._transport.send(
            "PUT", f"{self._name}/manifests/{tag}", content, media_type=media_type
        )
        if done.status != 201:
            raise _unexpected(done)
        return digest

    def attach(self, reference: str, image: ImageDigest, manifest: bytes, kind: str) -> None:
        """Upload an artifact; list it under a tag if the registry does not list it itself."""
        self.put_manifest(manifest, oci.IMAGE_MANIFEST, "")
        if self._listed_by_registry(image) is None:
            attached.list_referrer(self, reference, image, attached.referrer_of(manifest, kind))

    def tagged(self, name: str) -> bytes | None:
        """The manifest under a name of this repository, or None."""
        answer = self._manifest(oci.parse_reference(name).tag)
        return None if answer.status == 404 else _content(answer, name)

    def sibling(self, reference: str, tag: str) -> str:
        """How another tag of the same repository is named."""
        return f"{oci.parse_reference(reference).repository}:{tag}"

    # Details --------------------------------------------------------------------------------

    def _manifest(self, name: str) -> Answer:
        path = f"{self._name}/manifests/{name}"
        return self._transport.get(path, accept=_ACCEPT, limit=oci.MAX_MANIFEST)

    def _known(self, digest: ImageDigest) -> bytes:
        try:
            return self.manifest(digest)
        except MissingBlob as error:
            raise UnknownImage("the registry has no such image", got=digest) from error

    def _remember(self, digest: ImageDigest, content: bytes) -> None:
        try:
            listed = oci.parse_index(content).manifests
        except FormatError:
            return
        self._indexes[digest] = frozenset(one.digest for one in listed)

    def _signatures(self, image: ImageDigest) -> Iterator[SignatureArtifact]:
        name = f"{self._repository}:{attached.signature_tag(image)}"
        if (manifest := self.tagged(name)) is not None:
            yield from attached.tagged_signatures(self.blobs, manifest, name)
        yield from attached.referring_signatures(self.blobs, self.referring(image))

    def _referrers(self, image: ImageDigest) -> tuple[Descriptor, ...]:
        listed = self._listed_by_registry(image)
        if listed is None:
            fallback = self.tagged(f"{self._repository}:{attached.referrers_tag(image)}")
            listed = _index(fallback) if fallback is not None else _index(b"")
        return listed.manifests

    def _listed_by_registry(self, image: ImageDigest) -> Index | None:
        path = f"{self._name}/referrers/{image}"
        answer = self._transport.get(path, accept=oci.IMAGE_INDEX, limit=oci.MAX_MANIFEST)
        return _index(answer.body) if answer.status == 200 else None


def _index(content: bytes) -> Index:
    """A list of referrers; one that cannot be read lists nothing."""
    try:
        return oci.parse_index(content)
    except FormatError:
        return Index(schema_version=2, manifests=())


def _content(answer: Answer, what: str) -> bytes:
    if answer.status != 200:
        raise _missing(answer.status, what)
    return answer.body


def _missing(status: int, what: str) -> MissingBlob | RegistryUnreachable:
    if status == 404:
        return MissingBlob("the registry does not have it", got=what)
    return RegistryUnreachable("registry answers unexpectedly", got=f"{status} for {what[:120]}")


def _unexpected(answer: Answer) -> RegistryUnreachable:
    said = ascii(answer.body[:200].decode("utf-8", "replace"))
    return RegistryUnreachable("registry refuses an upload", got=f"{answer.status}: {said}")
