"""What publishers put on the data disk, judged by the command that an operator has for it."""

from __future__ import annotations

import pytest

from catena.lab import publishing, tools
from catena.lab.container_attacks import GALLERY
from catena.lab.datadisk import repository
from catena.lab.narration import Step
from catena.lab.operator import CommandRefused, Operator
from catena.lab.tree import Cache
from catena.lab.workspace import Workspace

pytestmark = pytest.mark.skipif(tools.BUSYBOX.find() is None, reason="not installed: busybox")

REFUSED = {
    "unsigned-image": ("acme/unsigned", "image-unsigned"),
    "other-publisher": ("acme/forged", "other-publisher"),
    "copied-signature": ("acme/production", "signed-for-another-repository"),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "lab"
    workspace = Workspace(folder, Cache(folder))
    workspace.found()
    operator = Operator(workspace.profile)
    operator.run("keys", "init", workspace.keys)
    publishing.make_policy(workspace, operator, Step(None))
    publishing.publish(workspace, operator, Step(None))
    return workspace, operator


def verify(published, name, *more):
    workspace, operator = published
    return operator.run(
        *("container", "verify", f"oci:{workspace.containers}/layout:{repository(name)}:1"),
        *("--policy", workspace.container_policy),
        *("--policy-key", workspace.keys / "release.pub", *more),
    )


def test_image_of_the_story_is_verified(published):
    document = verify(published, "acme/web")
    assert document["publisher"] == "acme"
    assert document["claimed_repository"] == repository("acme/web")


@pytest.mark.parametrize("attack", REFUSED)
def test_image_of_an_attack_is_refused_as_the_gallery_says(published, attack):
    name, code = REFUSED[attack]
    with pytest.raises(CommandRefused) as refused:
        verify(published, name)
    assert refused.value.code == code
    assert code in next(one.expected for one in GALLERY if one.name == attack)


def test_the_image_whose_signature_was_copied_was_good_where_it_was_signed(published):
    """Nothing else is wrong with it: only its repository."""
    staging = repository("acme/staging")
    document = verify(published, "acme/production", "--repository", staging)
    assert document["repository"] == staging


def test_disk_is_there_and_private_keys_are_only_the_owners(published):
    workspace, _ = published
    assert workspace.data_disk.stat().st_size > 1 << 20
    assert {path.stat().st_mode & 0o777 for path in workspace.containers.glob("*.key")} == {0o600}
