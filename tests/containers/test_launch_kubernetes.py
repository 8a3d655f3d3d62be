"""Pods and Docker: configurations written after what containerd's CRI plugin, CRI-O and Docker make of
them (these need a cluster or a daemon, so they are not recorded here)."""

from __future__ import annotations

import pytest
from launch_vectors import PATH, image, parsed, recorded, with_change

from catena.containers.launch.check import check_create
from catena.containers.launch.document import default_policy
from catena.containers.launch.refusals import LaunchHook, LaunchRefused
from catena.formats.runtime import RuntimeConfig
from changed import replace

ID = "0123456789abcdef" * 4
POD = "/var/lib/kubelet/pods/6f8c5e0a-8f2c-4b5e-9a51-7f1b5a0c2d3e"
CRI = "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/" + ID
ARGV = ("/app", "--serve")
IMAGE = image((), entrypoint=ARGV, user="1000", cwd="/srv")


def bind(destination: str, source: str, mode: str = "rw") -> dict:
    options = ["rbind", "rprivate", mode]
    return {"destination": destination, "type": "bind", "source": source, "options": options}


def pods(config: dict) -> None:
    """What every container of a pod has."""
    process = config["process"]
    process["args"], process["cwd"] = list(ARGV), "/srv"
    process["user"] = {"uid": 1000, "gid": 0, "additionalGids": [0, 2000]}
    process["env"] = [
        f"PATH={PATH}",
        "HOSTNAME=web-0",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        "KUBERNETES_SERVICE_PORT_HTTPS=443",
        "KUBERNETES_PORT=tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
        "KUBERNETES_PORT_443_TCP_PROTO=tcp",
        "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
    ]
    process["oomScoreAdj"] = 1000
    del process["noNewPrivileges"]
    for one in config["linux"]["namespaces"]:
        if one["type"] in {"ipc", "uts", "network"}:
            one["path"] = f"/proc/4711/ns/{one['type']}"
    token = f"{POD}/volumes/kubernetes.io~projected/kube-api-access-x7k2p"
    config["mounts"] += [
        bind("/etc/hosts", f"{POD}/etc-hosts"),
        bind("/dev/termination-log", f"{POD}/containers/web/1a2b3c4d"),
        bind("/var/run/secrets/kubernetes.io/serviceaccount", token, "ro"),
    ]


def containerd(config: dict) -> None:
    pods(config)
    config["process"]["apparmorProfile"] = "cri-containerd.apparmor.d"
    config["mounts"] += [
        bind("/etc/hostname", f"{CRI}/hostname"),
        bind("/etc/resolv.conf", f"{CRI}/resolv.conf"),
        bind("/dev/shm", CRI.replace("/var/lib", "/run") + "/shm"),
    ]
    config["annotations"] = {
        "io.kubernetes.cri.container-name": "web",
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": "registry.example/web:1",
        "io.kubernetes.cri.sandbox-id": ID,
    }
    config["linux"]["cgroupsPath"] = f"kubepods-besteffort-pod6f8c5e0a.slice:cri-containerd:{ID}"


def crio(config: dict) -> None:
    pods(config)
    userdata = f"/var/run/containers/storage/overlay-containers/{ID}/userdata"
    config["mounts"] += [
        bind("/etc/hostname", f"{userdata}/hostname"),
        bind("/etc/resolv.conf", f"{userdata}/resolv.conf", "ro"),
        bind("/dev/shm", f"{userdata}/shm"),
        bind("/run/.containerenv", f"{userdata}/.containerenv"),
        bind("/run/secrets", f"{userdata}/run/secrets"),
    ]
    config["annotations"] = {
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.SandboxID": ID,
        "io.kubernetes.cri-o.ImageName": "registry.example/web:1",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.TimeoutStopUSec": "uint64 30000000",
    }


def sandbox(config: dict) -> None:
    """containerd's pause container: it makes the namespaces but for the network's."""
    config["process"] |= {"args": ["/pause"], "cwd": "/", "noNewPrivileges": True}
    config["process"]["user"] = {"uid": 65535, "gid": 65535}
    config["process"]["env"] = [f"PATH={PATH}"]
    config["root"]["readonly"] = True
    config["mounts"] += [
        bind("/dev/shm", CRI.replace("/var/lib", "/run") + "/shm", "ro"),
        bind("/etc/resolv.conf", f"{CRI}/resolv.conf", "ro"),
    ]
    config["linux"]["sysctl"] = {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    for one in config["linux"]["namespaces"]:
        if one["type"] == "network":
            one["path"] = "/var/run/netns/cni-6f8c5e0a"
    config["annotations"] = {
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-id": ID,
    }


def docker(config: dict) -> None:
    config["process"] |= {"args": list(ARGV), "cwd": "/srv", "oomScoreAdj": 0}
    config["process"]["user"] = {"uid": 1000, "gid": 0, "additionalGids": [0]}
    config["process"]["env"] = [f"PATH={PATH}", "HOSTNAME=0123456789ab"]
    files = f"/var/lib/docker/containers/{ID}"
    config["mounts"] += [
        bind("/dev/shm", f"{files}/mounts/shm"),
        bind("/etc/resolv.conf", f"{files}/resolv.conf"),
        bind("/etc/hostname", f"{files}/hostname"),
        bind("/etc/hosts", f"{files}/hosts"),
    ]
    setkey = ["libnetwork-setkey", "-exec-root=/var/run/docker", ID, "0123456789ab"]
    config["hooks"] = {"prestart": [{"path": "/proc/812/exe", "args": setkey}]}
    resources = config["linux"]["resources"]
    resources |= {"memory": {"disableOOMKiller": False}, "blockIO": {"weight": 0}}
    resources["devices"] += [
        {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
    ]


def written(engine) -> RuntimeConfig:
    return parsed(with_change(recorded("ctr-1.6"), engine))


def others(kind: str, path: str) -> bool:
    """No namespace that is joined is the host's."""
    return False


@pytest.mark.parametrize(
    ("engine", "own"),
    [
        (containerd, IMAGE),
        (crio, IMAGE),
        (sandbox, image((), entrypoint=("/pause",), user="65535:65535", cwd="/")),
    ],
)
def test_an_ordinary_pod_passes_the_default_policy(engine, own):
    config = written(engine)
    check_create(config, default_policy(), own, others)
    assert config.sandbox == ID
    assert config.container_type in {"container", "sandbox"}


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (lambda one: one["process"]["env"].append("DEBUG=1"), "launch-env"),
        (lambda one: one["process"].update(args=["/bin/sh"]), "launch-argv"),
        (lambda one: one["process"].update(cwd="/"), "launch-directory"),
        (lambda one: one["process"]["user"].update(uid=0), "launch-user"),
        (lambda one: one["mounts"].append(bind("/srv", "/var/log/pods")), "launch-mount"),
        (
            lambda one: one["mounts"].append(
                bind("/srv", f"{POD}/volumes/kubernetes.io~empty-dir/x")
            ),
            "launch-mount",
        ),
    ],
)
def test_a_pod_with_more_needs_a_policy_of_its_own(edit, code):
    config = parsed(with_change(with_change(recorded("ctr-1.6"), containerd), edit))
    with pytest.raises(LaunchRefused) as refused:
        check_create(config, default_policy(), IMAGE, others)
    assert refused.value.code == code


def test_a_service_cannot_stand_in_for_a_variable_of_the_image():
    config = with_change(recorded("ctr-1.6"), containerd)
    config["process"]["env"].append("DB_SERVICE_HOST=10.0.0.1")
    check_create(parsed(config), default_policy(), IMAGE, others)
    own = image((), entrypoint=ARGV, user="1000", cwd="/srv", env=("DB_SERVICE_HOST=db",))
    with pytest.raises(LaunchRefused) as refused:
        check_create(parsed(config), default_policy(), own, others)
    assert refused.value.code == "launch-env"


def test_a_pod_in_the_hosts_network_is_refused_although_it_names_a_path():
    with pytest.raises(LaunchRefused) as refused:
        check_create(
            written(containerd), default_policy(), IMAGE, lambda kind, _: kind == "network"
        )
    assert refused.value.code == "launch-namespace"


def test_dockers_network_needs_a_rule_for_its_hook():
    config = written(docker)
    with pytest.raises(LaunchRefused) as refused:
        check_create(config, default_policy(), IMAGE, others)
    assert refused.value.code == "launch-hook"
    rule = (
        "re:/proc/[0-9]+/exe libnetwork-setkey -exec-root=/var/run/docker [0-9a-f]{64} [0-9a-f]{12}"
    )
    check_create(config, replace(default_policy(), hooks=(rule,)), IMAGE, others)


def test_nerdctls_hooks_are_refused_for_their_variables_whatever_a_policy_names():
    """nerdctl 2 hands all variables of its caller to hooks (``withNerdctlOCIHook``)."""
    words = ("/usr/bin/nerdctl", "internal", "oci-hook", "createRuntime")
    hook = {"path": words[0], "args": list(words)}
    policy = replace(default_policy(), hooks=(" ".join((words[0], *words)),))

    def check(**more) -> None:
        config = with_change(recorded("ctr-1.6"), containerd)
        config["hooks"] = {"createRuntime": [hook | more]}
        check_create(parsed(config), policy, IMAGE, others)

    check()
    with pytest.raises(LaunchHook, match="variables of its own"):
        check(env=["LD_PRELOAD=/tmp/own.so"])
