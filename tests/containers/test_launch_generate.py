"""A generated policy allows its image's own start, as each engine writes it, and little else."""

from __future__ import annotations

import pytest
from launch_vectors import ARGV, PATH, image, nobodys, parsed, recorded

from catena.containers.launch.check import check_create
from catena.containers.launch.generate import generate
from catena.containers.launch.mounts import check_mount
from catena.containers.launch.refusals import LaunchMount, LaunchRefused
from catena.containers.launch.rules import compile_launch
from catena.formats import imageconfig
from catena.formats.launchpolicy import LaunchPolicy
from catena.formats.runtime import Mount

ID = "0123456789abcdef" * 4
POD = "/var/lib/kubelet/pods/6f8c5e0a-8f2c-4b5e-9a51-7f1b5a0c2d3e"
CRI = f"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{ID}"
RUN = f"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{ID}"


def policy_for(**settings) -> LaunchPolicy:
    return generate(imageconfig.parse(image(**settings)), "web")


@pytest.mark.parametrize("name", ["podman-4.3", "ctr-1.6", "runc-1.1"])
def test_the_images_own_start_is_allowed_without_its_configuration(name):
    config = parsed(recorded(name))
    check_create(config, policy_for(argv=config.argv), None, nobodys)


def test_the_policy_spells_out_what_runs():
    policy = policy_for(
        argv=("--serve",), entrypoint=("/app",), env=("MODE=x", "PATH=/app"), user="7", cwd="/srv/"
    )
    assert policy.argv == (("/app", "--serve"),)
    assert (policy.env["MODE"], policy.env["PATH"]) == ("x", "/app")
    assert (policy.cwd, policy.users) == (("/srv",), ("re:7:[0-9]+",))
    assert (policy.exec, policy.hooks, policy.devices) == ((), (), ())


@pytest.mark.parametrize(
    ("user", "rules"),
    [
        ("", ("re:0:[0-9]+",)),
        ("root", ("re:0:[0-9]+",)),
        ("7:8", ("7:8",)),
        ("7:staff", ("re:7:[0-9]+",)),
        ("nobody", ("image:user",)),
    ],
)
def test_the_images_user_becomes_numbers_where_it_can(user, rules):
    assert policy_for(user=user).users == rules


def test_an_image_without_a_command_gets_a_policy_without_commands():
    assert policy_for(argv=()).argv == ()


@pytest.mark.parametrize("word", ["...", "re:.*", "image:argv", "image:", "re:a b\\"])
def test_words_that_look_like_rules_stay_words(word):
    config = recorded("podman-4.3")
    config["process"]["args"] = ["/bin/a", word]
    config["process"]["env"].append(f"X={word}")
    policy = policy_for(argv=("/bin/a", word), env=(f"PATH={PATH}", f"X={word}"))
    check_create(parsed(config), policy, None, nobodys)
    config["process"]["args"] = ["/bin/a", "other"]
    with pytest.raises(LaunchRefused):
        check_create(parsed(config), policy, None, nobodys)


def test_volumes_of_the_image_may_be_mounted():
    policy = compile_launch(policy_for(Volumes={"/data/": {}}))
    for source in (
        f"/var/lib/containers/storage/volumes/{ID}/_data",
        f"/var/lib/docker/volumes/{ID}/_data",
        f"/var/lib/containerd/io.containerd.grpc.v1.cri/containers/{ID}/volumes/{ID}",
    ):
        check_mount(Mount(destination="/data", source=source, type="bind"), policy)
    with pytest.raises(LaunchMount):
        check_mount(Mount(destination="/data", source="/srv", type="bind"), policy)


USUAL = [
    ("/etc/hosts", f"{POD}/etc-hosts", False),
    ("/etc/hosts", f"{CRI}/hosts", False),
    ("/etc/hostname", f"{CRI}/hostname", False),
    ("/etc/resolv.conf", f"{CRI}/resolv.conf", False),
    ("/etc/resolv.conf", f"/var/lib/docker/containers/{ID}/resolv.conf", False),
    ("/dev/shm", f"{RUN}/shm", False),
    ("/dev/shm", f"/var/lib/docker/containers/{ID}/mounts/shm", False),
    ("/dev/shm", f"/srv/podman/overlay-containers/{ID}/userdata/shm", False),
    (
        "/run/.containerenv",
        f"/run/containers/storage/overlay-containers/{ID}/userdata/.containerenv",
        False,
    ),
    ("/dev/termination-log", f"{POD}/containers/web/1a2b3c4d", False),
    (
        "/var/run/secrets/kubernetes.io/serviceaccount",
        f"{POD}/volumes/kubernetes.io~projected/kube-api-access-x7k2p",
        True,
    ),
    ("/etc/hosts", "/etc/hosts", True),
]


@pytest.mark.parametrize(("destination", "source", "read_only"), USUAL)
def test_files_that_engines_add_are_allowed(destination, source, read_only):
    policy = compile_launch(policy_for())
    mount = {"destination": destination, "source": source, "type": "bind"}
    check_mount(Mount(**mount, options=("rbind", "rprivate", "ro")), policy)
    if read_only:
        with pytest.raises(LaunchMount):
            check_mount(Mount(**mount, options=("rbind", "rprivate")), policy)
    else:
        check_mount(Mount(**mount, options=("rbind", "rprivate", "rw")), policy)


@pytest.mark.parametrize(
    ("destination", "source"),
    [
        ("/etc/passwd", f"{CRI}/hosts"),
        ("/etc/hosts", f"{CRI}/hostname"),
        ("/etc/hosts", f"/srv/x:y-containers/{ID}/userdata/hosts"),
        ("/etc/hosts", f"{CRI}/../hosts"),
        ("/etc/hosts", f"{POD}/volumes/kubernetes.io~empty-dir/x/etc-hosts"),
        ("/dev/shm", "/dev/shm"),
        (
            "/var/run/secrets/kubernetes.io/serviceaccount",
            f"{POD}/volumes/kubernetes.io~projected/other",
        ),
        ("/run/secrets", "/run/secrets"),
    ],
)
def test_other_files_in_their_places_are_not(destination, source):
    mount = Mount(destination=destination, source=source, type="bind", options=("ro",))
    with pytest.raises(LaunchMount):
        check_mount(mount, compile_launch(policy_for()))


def test_a_start_with_more_than_the_image_says_is_refused():
    config = recorded("podman-4.3")
    config["process"]["env"].append("LD_PRELOAD=/x")
    with pytest.raises(LaunchRefused):
        check_create(parsed(config), policy_for(argv=ARGV), None, nobodys)
