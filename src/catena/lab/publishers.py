"""Who publishes container images in the lab, and what the enterprise lets them publish.

``acme`` is trusted for its own repositories and ``mallory`` for hers. The container policy that
says so is signed with the release key and becomes a part of the release.
"""

from __future__ import annotations

from pathlib import Path

from catena.formats.containerpolicy import ContainerPolicy, Publisher, Scope
from catena.formats.launchpolicy import LaunchPolicy, MountRule
from catena.keys.signer import KeyAlgorithm, generate_key, public_pem, write_key
from catena.lab.bundles import Mount
from catena.lab.images import PATH, Image

ACME = "acme"
MALLORY = "mallory"
PUBLISHERS = (ACME, MALLORY)
POLICY_NAME = "lab-containers"


def make_keys(folder: Path) -> None:
    """A key for each publisher: ``NAME.key`` and ``NAME.pub``, P-256 as cosign has them."""
    for name in PUBLISHERS:
        key = generate_key(KeyAlgorithm.ECDSA_P256)
        write_key(folder / f"{name}.key", key)
        (folder / f"{name}.pub").write_bytes(public_pem(key.public_key()))


def policy(folder: Path, registry: str) -> ContainerPolicy:
    """Each publisher for the repositories below its name; every image with a launch policy."""
    return ContainerPolicy(
        name=POLICY_NAME,
        version=1,
        publishers=tuple(
            Publisher(name=name, keys=((folder / f"{name}.pub").read_text(),))
            for name in PUBLISHERS
        ),
        scopes=tuple(
            Scope(repository=f"{registry}/{name}/*", publishers=(name,), launch_required=True)
            for name in PUBLISHERS
        ),
    )


def launch_policy(image: Image, mount: Mount) -> LaunchPolicy:
    """What an image may be started with: its own entry point, the one secret, no privilege."""
    return LaunchPolicy(
        name=image.repository,
        version=1,
        argv=(image.entrypoint,),
        env={"PATH": PATH},
        mounts=(MountRule(destination=mount.destination, source=mount.source),),
        users=("0:0",),
    )
