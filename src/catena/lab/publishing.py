"""Images made, signed and put on the data disk, with the commands a publisher would type."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from catena.lab import datadisk, images, publishers
from catena.lab.bundles import Bundle
from catena.lab.images import Image
from catena.lab.narration import Step
from catena.lab.operator import Operator
from catena.lab.publishers import ACME, MALLORY
from catena.lab.workspace import Workspace

STAGED = "acme/staging"
COPIED = "acme/production"
"""What ``STAGED`` becomes with all its signatures: another repository."""

_ROGUES = {
    "unsigned-image": ("acme/unsigned", None),
    "other-publisher": ("acme/forged", MALLORY),
    "copied-signature": (STAGED, ACME),
}
"""The images of attacks: repository and who signs."""


def make_policy(workspace: Workspace, operator: Operator, step: Step) -> None:
    """Make the publishers' keys and the signed container policy."""
    folder = workspace.containers
    shutil.rmtree(folder, ignore_errors=True)  # half made
    folder.mkdir(mode=0o700)
    publishers.make_keys(folder)
    policy = publishers.policy(folder, datadisk.REGISTRY)
    draft = folder / "policy.json"
    draft.write_bytes(msgspec.json.encode(policy))
    words = ("--keys", workspace.keys, "--to", workspace.container_policy)
    operator.run("container", "policy", "sign", draft, *words)
    step.checked("; ".join(f"{one.repository} by {one.publishers[0]}" for one in policy.scopes))


def publish(workspace: Workspace, operator: Operator, step: Step) -> None:
    """Fill ``workspace.data_disk``; what is half made is made again."""
    layout = workspace.containers / "layout"
    shutil.rmtree(layout, ignore_errors=True)
    web, rogues = datadisk.web(), _rogues()
    images.write_layout(layout, (web, *rogues.values()))
    _sign(workspace, operator, layout, web, ACME)
    for name, (_, signer) in _ROGUES.items():
        if signer is not None:
            _sign(workspace, operator, layout, rogues[name], signer)
    images.offer_as(layout, datadisk.repository(STAGED), datadisk.repository(COPIED))
    step.doing("data disk")
    datadisk.build(layout, bundles_of_all(), web, workspace.data_disk)
    step.checked(f"{web.reference} signed by {ACME}, with a launch policy")
    step.checked(f"{len(rogues)} more for attacks")


def _sign(
    workspace: Workspace, operator: Operator, layout: Path, image: Image, publisher: str
) -> None:
    """Sign an image in the layout, and attach a launch policy that lets it run as it wants to."""
    launch = workspace.containers / "launch.json"
    launch.write_bytes(msgspec.json.encode(publishers.launch_policy(image, datadisk.MOUNT)))
    key = workspace.containers / f"{publisher}.key"
    target = f"oci:{layout}:{image.reference}"
    operator.run("container", "sign", target, "--key", key, "--launch-policy", launch)


def bundles_of_all() -> tuple[Bundle, ...]:
    """Every bundle of the disk."""
    return datadisk.everything(datadisk.web(), tuple(_rogues().items()))


def _rogues() -> dict[str, Image]:
    return {name: datadisk.rogue(repository) for name, (repository, _) in _ROGUES.items()}
