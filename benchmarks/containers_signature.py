"""CPU time of deciding whether an image may run, beside the bare signature check in it.

An image store is made here, with and without two hundred other images; one image in it is signed in each
of cosign's formats. A figure is the whole way: find the signatures in the store, read and check them by digest, verify
them under a compiled policy. "Bare" is one P-256 verification with OpenSSL over the same bytes.

    python benchmarks/containers_signature.py [-o json] [--rounds N]

Ends with exit code 1 if a figure misses its limit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from catena.containers.images.layout import Layout
from catena.containers.signature.policy import compile_policy
from catena.containers.signature.result import SignatureFormat
from catena.containers.signature.sign import sign_image, target_of
from catena.containers.signature.verify import verify_image
from catena.formats import oci
from catena.formats.containerpolicy import ContainerPolicy, Publisher, Scope
from catena.ids import ImageDigest
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, public_pem
from figures import Figure, cheapest, command, milliseconds

LIMIT = 5.0
"""Milliseconds for one image: what a first start may add."""

REPOSITORY = "registry.example.com/team/app"
NOW = datetime(2026, 6, 1, tzinfo=UTC)
IMAGES = 200
"""Other images in the store, as on a busy node."""


def put_image(layout: Layout, name: str) -> ImageDigest:
    """A manifest with eight layers that nobody reads."""
    content = oci.Descriptor(media_type=oci.IMAGE_CONFIG, digest=oci.digest_of(b""), size=1)
    layers = tuple(
        oci.Descriptor(
            media_type="application/vnd.oci.image.layer.v1.tar+gzip",
            digest=oci.digest_of(f"{name}{number}".encode()),
            size=1,
        )
        for number in range(8)
    )
    manifest = oci.Manifest(
        schema_version=2, media_type=oci.IMAGE_MANIFEST, config=content, layers=layers
    )
    return layout.put_manifest(manifest.encode(), oci.IMAGE_MANIFEST, name)


def bare_verification() -> float:
    """One P-256 verification of a payload's size."""
    key = ec.generate_private_key(ec.SECP256R1())
    message, public = b"x" * 250, key.public_key()
    signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    return cheapest(200, lambda: public.verify(signature, message, ec.ECDSA(hashes.SHA256())))


def figures(rounds: int) -> Iterator[Figure]:
    """Verification of one image, by format, in a small and in a busy store."""
    bare = bare_verification()
    yield milliseconds("P-256 verification alone", bare)
    for others in (0, IMAGES):
        for kind in (SignatureFormat.COSIGN, SignatureFormat.COSIGN_BUNDLE):
            yield from _store_figures(rounds, kind, others, bare)


def _store_figures(
    rounds: int, kind: SignatureFormat, others: int, bare: float
) -> Iterator[Figure]:
    key = PrivateKeySigner(generate_key(KeyAlgorithm.ECDSA_P256))
    team = Publisher(name="team", keys=(public_pem(key.public_key).decode(),))
    scope = Scope(repository=REPOSITORY, publishers=("team",))
    policy = compile_policy(
        ContainerPolicy(name="bench", version=1, publishers=(team,), scopes=(scope,))
    )
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout.create(Path(folder))
        for number in range(others):
            put_image(layout, f"registry.example.com/other/{number}:1")
        name = f"{REPOSITORY}:1"
        image = put_image(layout, name)
        sign_image(target_of(layout, name, REPOSITORY), key, kind, annotations={}, now=NOW)

        def cold() -> object:
            return verify_image(Layout(Path(folder)), image, name, policy, NOW)

        def warm() -> object:
            return verify_image(layout, image, name, policy, NOW)

        store = f"store of {others + 1}"
        yield milliseconds(f"{kind}, {store}, index read anew", cheapest(rounds, cold), LIMIT, bare)
        yield milliseconds(f"{kind}, {store}", cheapest(rounds, warm), LIMIT, bare)


if __name__ == "__main__":
    command(__doc__ or "", figures, rounds=50)
