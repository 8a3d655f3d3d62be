"""The data disk: what a node can mount, and what each bundle on it would start."""

from __future__ import annotations

import json
import subprocess

import pytest

from catena.containers.launch.check import check_create
from catena.errors import CatenaError
from catena.formats.runtime import parse_config
from catena.lab import bundles, container_attacks, datadisk, images, publishers, tools
from catena.lab.publishing import bundles_of_all

pytestmark = pytest.mark.skipif(tools.BUSYBOX.find() is None, reason="not installed: busybox")


@pytest.fixture(scope="module")
def web():
    return datadisk.web()


def test_equal_inputs_give_equal_disks(web, tmp_path):
    images.write_layout(tmp_path / "layout", (web,))
    things = datadisk.everything(web, ())
    for name in ("one", "two"):
        datadisk.build(tmp_path / "layout", things, web, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout", "one", "two"]


def test_disk_holds_layout_archive_layers_and_bundles(web, tmp_path):
    images.write_layout(tmp_path / "layout", (web,))
    datadisk.build(tmp_path / "layout", datadisk.everything(web, ()), web, tmp_path / "disk")
    listed = subprocess.run(
        ["unsquashfs", "-l", "-d", "", tmp_path / "disk"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.splitlines()
    assert {"/images/index.json", "/archives/web.tar", "/bundles/web/config.json"} <= set(listed)
    layers = [line for line in listed if line.startswith("/layers/") and line.count("/") == 2]
    assert len(layers) == 3  # of the image: two; one of them again, patched


def test_patched_layer_differs_in_one_bit_of_one_file(web):
    *below, top = datadisk.patched(web)
    *below_before, top_before = web.layers
    assert below == below_before
    assert top.entries[:-1] == top_before.entries[:-1]
    pairs = zip(top.entries[-1].content, top_before.entries[-1].content, strict=True)
    assert sum((one ^ other).bit_count() for one, other in pairs) == 1


def test_layers_of_a_bundle_are_named_top_first(web, tmp_path):
    bundles.of("web", web, datadisk.MOUNT).stage(tmp_path)
    names = (tmp_path / "bundles/web/layers").read_text().split()
    assert (tmp_path / "layers" / names[0] / "app/prove").exists()
    assert (tmp_path / "layers" / names[1] / "bin/busybox").exists()


def test_every_refused_start_has_its_bundle_and_would_run_something_rogue():
    things = {one.name: one for one in bundles_of_all()}
    starts = {attack.name for attack in container_attacks.GALLERY} - {
        "gate-killed",
        "record-edited",
    }
    assert things.keys() == starts | {"web"}
    scripts = {name: str(one.layers[-1].entries[-1].content) for name, one in things.items()}
    for name in starts - {"patched-layer"}:
        assert datadisk.ROGUE_RUNS in scripts[name] or datadisk.ROGUE_RUNS in str(things[name].argv)


def test_bundle_asks_for_no_privilege_and_mounts_the_secret_read_only(web):
    config = json.loads(bundles.of("web", web, datadisk.MOUNT).config())
    assert config["process"]["capabilities"] == {}
    assert config["process"]["noNewPrivileges"] is True
    (mount,) = [one for one in config["mounts"] if one["type"] == "bind"]
    assert mount["source"] == datadisk.MOUNT.source
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mount["options"])


def test_policy_trusts_each_publisher_for_its_own_name_only(tmp_path):
    publishers.make_keys(tmp_path)
    policy = publishers.policy(tmp_path, "registry.example")
    assert [(one.repository, one.publishers) for one in policy.scopes] == [
        ("registry.example/acme/*", ("acme",)),
        ("registry.example/mallory/*", ("mallory",)),
    ]
    assert all(one.launch_required for one in policy.scopes)
    assert policy.default_launch is None
    keys = [one.keys for one in policy.publishers]
    assert keys[0] != keys[1]


@pytest.fixture(scope="module")
def launched():
    """Every bundle's configuration, and the launch policy of the image that it is said to be."""
    policy = publishers.launch_policy(datadisk.web(), datadisk.MOUNT)
    return {one.name: parse_config(one.config()) for one in bundles_of_all()}, policy


def test_bundle_of_the_story_is_what_its_launch_policy_allows(launched):
    configs, policy = launched
    check_create(configs["web"], policy, datadisk.web().config())
    check_create(configs["patched-layer"], policy, datadisk.web().config())


def test_other_argv_is_beyond_the_launch_policy_and_nothing_else_is(launched):
    configs, policy = launched
    with pytest.raises(CatenaError) as refused:
        check_create(configs["other-argv"], policy, datadisk.web().config())
    assert refused.value.code == "launch-argv"
