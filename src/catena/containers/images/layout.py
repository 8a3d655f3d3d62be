"""OCI image layouts (image-spec 1.1, "image-layout.md"), read and written.

The image store of a node is one: entries are named by the whole reference, ``registry/name:tag``;
layouts that other tools wrote name them by the tag alone. Where a tag moves in the store, the image it
named before stays under ``registry/name@digest``: containers may still run from it.

Writing is durable: content, then the index that names it, each by an atomic rename. Writers wait for
one another (a lock file); readers never do.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from catena.containers.images import attached
from catena.containers.images.blobs import MissingBlob
from catena.containers.images.folder import BlobFolder, StoreUnusable, chunks_of, replacing
from catena.containers.images.source import MovedTag, SignatureArtifact, UnknownImage
from catena.errors import FormatError
from catena.formats import oci
from catena.formats.oci import Descriptor, Index
from catena.ids import ImageDigest

_LAYOUT = "oci-layout"
_INDEX = "index.json"
_LOCK = ".lock"
_STAMP = b'{"imageLayoutVersion":"1.0.0"}'
_ATTACHED = "sha256-"


class Layout:
    """One layout folder as an ``ImageSource`` that can also be written.

    Safe to use from several threads: what it remembers of the index is replaced as a whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[tuple[int, int, int], Index] | None = None
        self.blobs = BlobFolder(folder / "blobs")

    @classmethod
    def create(cls, folder: Path) -> Layout:
        """The layout in ``folder``, made if there is none. Raises ``StoreUnusable``."""
        layout = cls(folder)
        with layout._locked():
            if not (folder / _LAYOUT).exists():
                layout._write(_INDEX, _empty().encode())
                layout._write(_LAYOUT, _STAMP)
        return layout

    # What an ImageSource answers --------------------------------------------------------------

    def resolve(self, reference: str) -> ImageDigest:
        """The digest that a name in the layout means. Raises as ``ImageSource`` says."""
        name, at, text = reference.partition("@")
        asked = oci.parse_digest(text) if at else None
        found = self._named(name) or self._named(reference)
        if found is None and (asked is None or not self.blobs.has(asked)):
            raise UnknownImage("the layout has no such image", got=ascii(reference[:120]))
        if asked is not None and found not in {None, asked}:
            raise MovedTag("tag names another image now", expected=asked, got=found)
        digest = asked or found
        assert digest is not None  # noqa: S101  one of them is there
        return digest

    def repositories(self, image: ImageDigest) -> tuple[str, ...]:
        """Repositories of all references that name the image, or an index that lists it."""
        digests = {image, *self.indexes(image)}
        names = (_repository(one) for one in self._entries() if one.digest in digests)
        return tuple(sorted({name for name in names if name}))

    def indexes(self, image: ImageDigest) -> tuple[ImageDigest, ...]:
        """Indexes in the layout that list the image."""
        found = (one for one in self._entries() if _is_image_index(one))
        return tuple(ImageDigest(one.digest) for one in found if image in self._listed(one.digest))

    def signature_manifests(self, image: ImageDigest) -> Iterator[SignatureArtifact]:
        """Signatures by tag, then by subject. Raises ``TooManySignatures``."""
        return attached.bounded(self._signatures(image))

    def _signatures(self, image: ImageDigest) -> Iterator[SignatureArtifact]:
        for one in self._tagged(attached.signature_tag(image)):
            manifest = self.blobs.read(one.digest, oci.MAX_MANIFEST)
            yield from attached.tagged_signatures(self.blobs, manifest, one.digest)
        yield from attached.referring_signatures(self.blobs, self.referring(image))

    def launch_policies(self, image: ImageDigest) -> Iterator[bytes]:
        """Launch policies by subject. Raises ``TooManySignatures``."""
        return attached.launch_policies(self.blobs, self.referring(image))

    def referring(self, image: ImageDigest) -> Iterator[tuple[str, oci.Manifest]]:
        """Digest and manifest of everything that refers to the image."""
        return attached.referring(self.manifest, self._referrers(image), image)

    def stream(self, digest: str) -> Iterator[bytes]:
        """Content in pieces, *unchecked*. Raises ``MissingBlob``."""
        with self.blobs.open(digest) as file:
            yield from chunks_of(file)

    def images(self) -> tuple[ImageDigest, ...]:
        """Every image of one platform that the layout has, without what is attached to images."""
        found: dict[ImageDigest, None] = {}
        for entry in self._entries():
            if _is_attached(entry):
                continue
            listed = self._listed(entry.digest) if _is_image_index(entry) else [entry.digest]
            found.update((ImageDigest(one), None) for one in listed if self.blobs.has(one))
        return tuple(found)

    def manifest(self, digest: str) -> bytes:
        """A manifest or index. Raises as ``blobs.read``."""
        return self.blobs.read(digest, oci.MAX_MANIFEST)

    # Writing --------------------------------------------------------------------------------

    def add(self, content: bytes) -> ImageDigest:
        """Store content. Raises ``StoreUnusable``."""
        return self.blobs.add(content)

    def put_manifest(self, content: bytes, media_type: str, name: str) -> ImageDigest:
        """Store a manifest and name it. Raises ``StoreUnusable``."""
        digest = self.blobs.add(content)
        entry = Descriptor(
            media_type=media_type,
            digest=digest,
            size=len(content),
            annotations={oci.REF_NAME: name},
        )
        self._change(lambda entries: _renamed(entries, entry, name))
        return digest

    def attach(self, reference: str, image: ImageDigest, manifest: bytes, kind: str) -> None:
        """Store an artifact and list it under the image's referrers tag."""
        self.blobs.add(manifest)
        attached.list_referrer(self, reference, image, attached.referrer_of(manifest, kind))

    def tagged(self, name: str) -> bytes | None:
        """The manifest that is named so, or None."""
        digest = self._named(name)
        return self.manifest(digest) if digest else None

    def sibling(self, reference: str, tag: str) -> str:
        """How another tag of the same repository is named in this layout."""
        try:
            return f"{oci.parse_reference(reference).repository}:{tag}"
        except FormatError:
            return tag

    # The index ------------------------------------------------------------------------------

    def _named(self, name: str) -> ImageDigest | None:
        digests = {one.digest for one in self._entries() if _ref_name(one) == name and name}
        if len(digests) > 1:
            raise FormatError("layout has two images of one name", got=ascii(name[:120]))
        return ImageDigest(digests.pop()) if digests else None

    def _tagged(self, tag: str) -> Iterator[Descriptor]:
        """Entries with this tag, in whatever repository."""
        for one in self._entries():
            name = _ref_name(one)
            if name == tag or name.endswith(f":{tag}"):
                yield one

    def _referrers(self, image: ImageDigest) -> Iterator[Descriptor]:
        """What may refer to the image: each once."""
        seen: set[str] = set()
        unnamed = (one for one in self._entries() if one.artifact_type or not _ref_name(one))
        for entry in self._tagged(attached.referrers_tag(image)):
            for one in self._index(entry.digest).manifests:
                if one.digest not in seen:
                    seen.add(one.digest)
                    yield one
        for one in unnamed:
            if one.digest not in seen and self._refers(one, image):
                seen.add(one.digest)
                yield one

    def _refers(self, entry: Descriptor, image: ImageDigest) -> bool:
        try:
            subject = oci.parse_manifest(self.manifest(entry.digest)).subject
        except (FormatError, MissingBlob):
            return False
        return subject is not None and subject.digest == image

    def _listed(self, digest: str) -> list[str]:
        return [one.digest for one in self._index(digest).manifests]

    def _index(self, digest: str) -> Index:
        try:
            return oci.parse_index(self.manifest(digest))
        except (FormatError, MissingBlob):
            return _empty()

    def _entries(self) -> tuple[Descriptor, ...]:
        """The index, read again when its file is another one."""
        try:
            found = os.stat(self._folder / _INDEX)  # noqa: PTH116  one call, on the hot path
        except OSError as error:
            raise StoreUnusable(f"no image layout in {self._folder}", got=error.strerror) from error
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        seen = self._seen
        if seen is None or seen[0] != stamp:
            seen = (stamp, self._read_index())
            self._seen = seen
        return seen[1].manifests

    def _read_index(self) -> Index:
        oci.parse_layout(self._read(_LAYOUT, 1024))
        return oci.parse_index(self._read(_INDEX, oci.MAX_INDEX), limit=oci.MAX_INDEX)

    def _read(self, name: str, limit: int) -> bytes:
        try:
            with (self._folder / name).open("rb") as file:
                return file.read(limit + 1)
        except OSError as error:
            raise StoreUnusable(f"cannot read {name}: {error.strerror}") from error

    def _change(self, change: Callable[[list[Descriptor]], list[Descriptor]]) -> None:
        with self._locked():
            index = self._read_index()
            entries = tuple(change(list(index.manifests)))
            self._write(_INDEX, msgspec.structs.replace(index, manifests=entries).encode())

    def _write(self, name: str, content: bytes) -> None:
        with replacing(self._folder / name, 0o644) as file:
            file.write(content)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Held while the index is read and replaced."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreUnusable(f"cannot write {self._folder}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _empty() -> Index:
    return Index(schema_version=2, manifests=())


def _ref_name(entry: Descriptor) -> str:
    return entry.notes.get(oci.REF_NAME, "")


def _repository(entry: Descriptor) -> str:
    try:
        return oci.parse_reference(_ref_name(entry)).repository
    except FormatError:
        return ""


def _is_attached(entry: Descriptor) -> bool:
    """A signature or a list of referrers, by its tag, its type or the lack of a name."""
    tag = _ref_name(entry).rpartition(":")[2]
    return tag.startswith(_ATTACHED) or bool(entry.artifact_type)


def _is_image_index(entry: Descriptor) -> bool:
    return entry.media_type in oci.INDEXES and not _is_attached(entry)


def _renamed(entries: list[Descriptor], entry: Descriptor, name: str) -> list[Descriptor]:
    """``name`` means ``entry`` now; an image that it meant before stays known by its digest."""
    kept = [one for one in entries if _ref_name(one) != name]
    before = next((one for one in entries if _ref_name(one) == name), None)
    if before is not None and before.digest != entry.digest and not _is_attached(before):
        repository = _repository(before)
        old = f"{repository}@{before.digest}"
        if repository and all(_ref_name(one) != old for one in kept):
            kept.append(msgspec.structs.replace(before, annotations={oci.REF_NAME: old}))
    return [*kept, entry]
