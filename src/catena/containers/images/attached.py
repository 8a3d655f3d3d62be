"""What is attached to an image: signatures and launch policies, found in two ways.

By **tag**: cosign's older signatures are layers of the manifest ``sha256-<hex>.sig``. By **subject**:
an artifact's manifest names the image; the registry lists such *referrers*, or, where it cannot,
an index under the tag ``sha256-<hex>`` does (OCI Distribution 1.1, "Referrers Tag Schema").

Both are hints from strangers, so what cannot be read is passed over, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from catena.containers.images.blobs import Blobs, MissingBlob
from catena.containers.images.source import (
    COSIGN_PAYLOAD,
    LAUNCH_POLICY,
    MAX_SIGNATURE,
    MAX_SIGNATURES,
    SIGNATURES,
    ImageStore,
    SignatureArtifact,
    TooManySignatures,
)
from catena.errors import FormatError
from catena.formats import oci
from catena.formats.oci import Descriptor, Index, Manifest
from catena.ids import ImageDigest

ReadManifest = Callable[[str], bytes]


def signature_tag(image: ImageDigest) -> str:
    """Where cosign keeps its older signatures."""
    return f"{referrers_tag(image)}.sig"


def referrers_tag(image: ImageDigest) -> str:
    """Where referrers are listed if the registry does not list them itself."""
    return image.replace(":", "-", 1)


def bounded(artifacts: Iterable[SignatureArtifact]) -> Iterator[SignatureArtifact]:
    """As many as are looked at. Raises ``TooManySignatures`` for one more."""
    for number, one in enumerate(artifacts):
        if number == MAX_SIGNATURES:
            raise TooManySignatures(
                "image has too many signatures", expected=f"at most {MAX_SIGNATURES}"
            )
        yield one


def tagged_signatures(blobs: Blobs, manifest: bytes, found: str) -> Iterator[SignatureArtifact]:
    """Cosign's older signatures in one manifest."""
    try:
        layers = oci.parse_manifest(manifest).layers
    except FormatError:
        return
    wanted = [layer for layer in layers if layer.media_type == COSIGN_PAYLOAD]
    yield from _artifacts(blobs, wanted, found)


def referring(
    read: ReadManifest, referrers: Iterable[Descriptor], image: ImageDigest
) -> Iterator[tuple[str, Manifest]]:
    """Digest and manifest of every referrer that really names the image."""
    for number, one in enumerate(referrers):
        if number == MAX_SIGNATURES:
            raise TooManySignatures(
                "too many artifacts refer to the image", expected=f"at most {MAX_SIGNATURES}"
            )
        try:
            manifest = oci.parse_manifest(read(one.digest))
        except (FormatError, MissingBlob):
            continue
        if manifest.subject is not None and manifest.subject.digest == image:
            yield one.digest, manifest


def referring_signatures(
    blobs: Blobs, referrers: Iterable[tuple[str, Manifest]]
) -> Iterator[SignatureArtifact]:
    """Bundles and notation's envelopes among the referrers."""
    for digest, manifest in referrers:
        wanted = [layer for layer in manifest.layers if layer.media_type in SIGNATURES]
        yield from _artifacts(blobs, wanted, digest)


def launch_policies(blobs: Blobs, referrers: Iterable[tuple[str, Manifest]]) -> Iterator[bytes]:
    """Envelopes of launch policies among the referrers."""
    for _, manifest in referrers:
        if manifest.kind == LAUNCH_POLICY:
            layers = [layer for layer in manifest.layers if layer.media_type == LAUNCH_POLICY]
            yield from (one.content for one in _artifacts(blobs, layers, ""))


def _artifacts(blobs: Blobs, layers: list[Descriptor], found: str) -> Iterator[SignatureArtifact]:
    if len(layers) > MAX_SIGNATURES:
        raise TooManySignatures(
            "manifest has too many signatures",
            expected=f"at most {MAX_SIGNATURES}",
            got=f"{len(layers)}",
        )
    for layer in layers:
        try:
            content = blobs.read(layer.digest, MAX_SIGNATURE)
        except (FormatError, MissingBlob):
            continue
        yield SignatureArtifact(layer.media_type, content, layer.notes, found=found)


def list_referrer(
    store: ImageStore, reference: str, image: ImageDigest, referrer: Descriptor
) -> None:
    """Add to the list under the image's referrers tag, unless it is there."""
    name = store.sibling(reference, referrers_tag(image))
    before = store.tagged(name)
    listed = oci.parse_index(before).manifests if before is not None else ()
    if any(one.digest == referrer.digest for one in listed):
        return
    index = Index(schema_version=2, media_type=oci.IMAGE_INDEX, manifests=(*listed, referrer))
    store.put_manifest(index.encode(), oci.IMAGE_INDEX, name)


def referrer_of(manifest: bytes, kind: str) -> Descriptor:
    """How a list of referrers describes an artifact."""
    return Descriptor(
        media_type=oci.IMAGE_MANIFEST,
        digest=oci.digest_of(manifest),
        size=len(manifest),
        artifact_type=kind,
    )
