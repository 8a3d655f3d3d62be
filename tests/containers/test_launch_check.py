"""What a launch policy refuses: one change of an allowed configuration at a time."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from launch_vectors import (
    ARGV,
    CANARY,
    PATH,
    STRICT,
    image,
    nobodys,
    ordinary,
    parsed,
    recorded,
    with_change,
)

from catena.containers.launch import refusals
from catena.containers.launch.check import check_create, check_exec, check_restore
from catena.containers.launch.document import default_policy
from catena.containers.launch.host import is_host_namespace
from catena.containers.launch.refusals import (
    ExecNotAllowed,
    LaunchEnv,
    LaunchNamespace,
    LaunchRefused,
    RestoreNotAllowed,
)
from catena.containers.launch.rules import compile_launch
from catena.errors import FormatError
from catena.formats.launchpolicy import LaunchPolicy, MountRule
from catena.formats.runtime import Process
from changed import replace

SHARE = "re:/.*"


def refusal(config: dict, policy=STRICT, image_config=None, is_host=nobodys) -> LaunchRefused:
    with pytest.raises(LaunchRefused) as caught:
        check_create(parsed(config), policy, image_config, is_host)
    return caught.value


def test_a_container_as_its_policy_says_is_allowed():
    check_create(parsed(ordinary()), STRICT, None, nobodys)
    check_create(parsed(ordinary()), compile_launch(STRICT), image(), nobodys)


@pytest.mark.parametrize("name", ["podman-4.3", "ctr-1.6", "runc-1.1"])
def test_what_engines_start_by_default_passes_the_default_policy(name):
    config = parsed(recorded(name))
    check_create(config, default_policy(), image(config.argv), nobodys)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("podman-4.3-privileged", "launch-capability"),
        ("ctr-1.6-privileged", "launch-capability"),
        ("ctr-1.6-host-network", "launch-namespace"),
        ("podman-4.3-host-network-volume", "launch-env"),
    ],
)
def test_what_engines_start_with_more_rights_does_not(name, code):
    config = recorded(name)
    assert refusal(config, default_policy(), image(config["process"]["args"])).code == code


def change(path: str, value: object):
    """Set what is at ``path`` (words and numbers, by dots); ``+`` as the last appends."""

    def apply(config: dict) -> None:
        *way, last = path.split(".")
        place = config
        for word in way:
            place = place[int(word)] if isinstance(place, list) else place.setdefault(word, {})
        if last == "+":
            place.append(value)
        elif isinstance(place, list):
            place[int(last)] = value
        elif value is None:
            place.pop(last, None)
        else:
            place[last] = value

    return apply


def bind(destination: str, source: str, *options: str, kind: str = "bind") -> dict:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


REFUSED = [
    # the command
    ("launch-argv", "process.args.+", "--more"),
    ("launch-argv", "process.args", ["/bin/sh"]),
    ("launch-argv", "process.args", list(ARGV[:2])),
    ("launch-argv", "process.args", []),
    ("launch-argv", "process.args", None),
    ("launch-argv", "process", None),
    # variables
    ("launch-env", "process.env.+", "LD_PRELOAD=/data/evil.so"),
    ("launch-env", "process.env.+", "PATH=/data"),
    ("launch-env", "process.env.+", "TOKEN=short"),
    ("launch-env", "process.env.+", "TOKEN=ümläut-ümläut"),
    ("launch-env", "process.env.+", "TOKEN"),
    ("launch-env", "process.env.+", "=x"),
    ("launch-env", "process.env.+", "path=/usr/bin"),
    # where and who
    ("launch-directory", "process.cwd", "/data"),
    ("launch-directory", "process.cwd", "/data/.."),
    ("launch-directory", "process.cwd", ""),
    ("launch-user", "process.user.uid", 1),
    ("launch-user", "process.user.gid", 1),
    ("launch-user", "process.user.additionalGids", [11]),
    # rights
    ("launch-capability", "process.capabilities.bounding.+", "CAP_SYS_ADMIN"),
    ("launch-capability", "process.capabilities.effective.+", "CAP_NET_RAW"),
    ("launch-capability", "process.capabilities.permitted.+", "CAP_SYS_PTRACE"),
    ("launch-capability", "process.capabilities.inheritable", ["CAP_BPF"]),
    ("launch-capability", "process.capabilities.ambient", ["CAP_SYS_MODULE"]),
    ("launch-capability", "process.capabilities.ambient", ["cap_chown"]),
    ("launch-privileges", "process.noNewPrivileges", False),
    ("launch-privileges", "process.noNewPrivileges", None),
    ("launch-privileges", "root.readonly", False),
    ("launch-privileges", "root", None),
    ("launch-privileges", "linux.rootfsPropagation", "shared"),
    ("launch-privileges", "linux.rootfsPropagation", "rshared"),
    ("launch-privileges", "linux.rootfsPropagation", "unbindable"),
    ("launch-privileges", "linux.maskedPaths", []),
    ("launch-privileges", "linux.maskedPaths", None),
    ("launch-privileges", "linux.maskedPaths.+", "/etc/ssl"),
    ("launch-privileges", "linux.readonlyPaths", None),
    ("launch-privileges", "linux.readonlyPaths.+", "/app"),
    ("launch-privileges", "linux.personality", {"domain": "LINUX", "flags": ["X"]}),
    ("launch-privileges", "linux.personality", {"domain": "SVR4"}),
    ("launch-privileges", "linux.cgroupsPath", "/"),
    ("launch-privileges", "linux.cgroupsPath", "/pods/../../system.slice"),
    ("launch-privileges", "linux.intelRdt", {"closID": "../info"}),
    # mounts
    ("launch-mount", "mounts.+", bind("/x", "/", "rbind", "ro")),
    ("launch-mount", "mounts.+", bind("/", "/srv/data", "rbind", "ro")),
    ("launch-mount", "mounts.+", bind("/.", "/srv/data", "rbind", "ro")),
    ("launch-mount", "mounts.+", bind("/data/../etc", "/srv/data", "rbind", "ro")),
    ("launch-mount", "mounts.+", bind("data", "/srv/data", "rbind", "ro")),
    ("launch-mount", "mounts.+", bind("/data", "/srv/data", "rbind")),
    ("launch-mount", "mounts.+", bind("/data", "/srv/data", "rbind", "ro", "rw")),
    ("launch-mount", "mounts.+", bind("/data", "/srv/data", "rbind", "ro", "rshared")),
    ("launch-mount", "mounts.+", bind("/data", "/srv/data", "rbind", "ro", "remount")),
    ("launch-mount", "mounts.+", bind("/data", "/srv/other", "rbind", "ro")),
    ("launch-mount", "mounts.+", bind("/data", "/srv/data/../other", "rbind", "ro")),
    ("launch-mount", "mounts.+", bind("/proc", "/srv/data", "bind", kind="proc")),
    ("launch-mount", "mounts.+", bind("/proc", "/", "rbind", "ro", kind="proc")),
    ("launch-mount", "mounts.+", bind("/app", "tmpfs", kind="tmpfs")),
    ("launch-mount", "mounts.+", bind("/tmp", "tmpfs", "lowerdir=/x", kind="tmpfs")),
    ("launch-mount", "mounts.+", bind("/app", "overlay", "lowerdir=/", kind="overlay")),
    ("launch-mount", "mounts.+", bind("/sys", "sysfs", kind="sysfs")),
    ("launch-mount", "mounts.+", bind("/sys/fs/cgroup", "cgroup", "ro", "rw", kind="cgroup")),
    ("launch-mount", "mounts.+", bind("/sys/fs/cgroup", "x", kind="cgroup2")),
    ("launch-mount", "mounts.+", bind("/sys/kernel/debug", "x", kind="debugfs")),
    ("launch-mount", "mounts.+", bind("/mnt", "proc", kind="proc")),
    ("launch-mount", "mounts.+", bind("/dev/sda", "/dev/sda", "bind", "ro")),
    ("launch-mount", "mounts.+", bind("/s", "/run/catena/gate.sock", "bind", "ro")),
    # namespaces
    ("launch-namespace", "linux.namespaces", []),
    ("launch-namespace", "linux.namespaces", None),
    ("launch-namespace", "linux.namespaces.0", {"type": "cgroup"}),
    ("launch-namespace", "linux.namespaces.1", {"type": "time"}),
    ("launch-namespace", "linux.namespaces.2", {"type": "user"}),
    ("launch-namespace", "linux.namespaces.3", {"type": "pid"}),
    ("launch-namespace", "linux.namespaces.4", {"type": "mount", "path": "/proc/1/ns/mnt"}),
    ("launch-namespace", "linux.namespaces.+", {"type": "pid"}),
    ("launch-namespace", "linux.namespaces.+", {"type": "net"}),
    ("launch-namespace", "linux", None),
    # devices
    ("launch-device", "linux.devices", [{"path": "/dev/sda", "type": "b", "major": 8}]),
    ("launch-device", "linux.devices", [{"path": "/dev/null", "type": "b", "major": 8}]),
    ("launch-device", "linux.devices", [{"path": "/dev/null", "type": "c", "major": 1}]),
    ("launch-device", "linux.netDevices", {"eth0": {}}),
    ("launch-device", "linux.resources", None),
    ("launch-device", "linux.resources.devices", []),
    ("launch-device", "linux.resources.devices", [{"allow": True, "access": "rwm"}]),
    ("launch-device", "linux.resources.devices.0.access", "rw"),
    ("launch-device", "linux.resources.devices.0.type", "c"),
    ("launch-device", "linux.resources.devices.+", {"allow": True, "access": "rwm"}),
    ("launch-device", "linux.resources.devices.+", {"allow": True, "type": "b", "access": "r"}),
    (
        "launch-device",
        "linux.resources.devices.+",
        {"allow": True, "type": "c", "major": 1, "access": "rw"},
    ),
    (
        "launch-device",
        "linux.resources.devices.+",
        {"allow": True, "type": "c", "major": 1, "minor": -1, "access": "r"},
    ),
    # hooks
    *(
        ("launch-hook", f"hooks.{kind}", [{"path": "/bin/sh", "args": ["sh", "-c", "id"]}])
        for kind in (
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        )
    ),
    # system calls
    ("launch-seccomp", "linux.seccomp", None),
    ("launch-seccomp", "linux.seccomp.defaultAction", "SCMP_ACT_ALLOW"),
    ("launch-seccomp", "linux.seccomp.defaultAction", "SCMP_ACT_LOG"),
    ("launch-seccomp", "linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY"),
    ("launch-seccomp", "linux.seccomp.defaultErrnoRet", 0),
    ("launch-seccomp", "linux.seccomp.listenerPath", "/run/x"),
    ("launch-seccomp", "linux.seccomp.syscalls.0.errnoRet", 0),
    ("launch-seccomp", "linux.seccomp.syscalls.0.action", "SCMP_ACT_TRACE"),
    # the kernel's parameters
    ("launch-sysctl", "linux.sysctl", {"kernel.core_pattern": "|/x"}),
    ("launch-sysctl", "linux.sysctl", {"net/ipv4/ip_forward": "1"}),
    ("launch-sysctl", "linux.resources.unified", {"cgroup.procs": "1"}),
    ("launch-sysctl", "linux.resources.unified", {"../x": "1"}),
    # orders in annotations
    *(
        ("launch-annotation", "annotations", {name: "x"})
        for name in (
            "run.oci.hooks.stdout",
            "run.oci.handler",
            "org.criu.config",
            "org.systemd.property.DeviceAllow",
            "module.wasm.image/variant",
            "io.katacontainers.config.hypervisor.path",
        )
    ),
    # other platforms
    *(("launch-platform", name, {}) for name in ("windows", "solaris", "vm", "zos", "freebsd")),
    ("launch-platform", "process.commandLine", "cmd.exe"),
]


@pytest.mark.parametrize(("code", "path", "value"), REFUSED)
def test_a_setting_beyond_the_policy_is_refused_with_its_code(code, path, value):
    refused = refusal(with_change(ordinary(), change(path, value)))
    assert refused.code == code
    assert refused.remedy
    assert CANARY not in str(refused.as_dict())


def test_every_kind_of_refusal_of_a_start_is_produced():
    classes = [
        one
        for one in vars(refusals).values()
        if isinstance(one, type) and issubclass(one, LaunchRefused) and one is not LaunchRefused
    ]
    codes = [one.code for one in classes]
    assert len(set(codes)) == len(codes)
    elsewhere = {
        "exec-not-allowed",
        "exec-unknown-option",
        "restore-not-allowed",
        "launch-policy-wrong-image",
    }
    assert {code for code, *_ in REFUSED} == set(codes) - elsewhere


ALLOWED = [
    ({}, "process.terminal", True),
    ({}, "process.rlimits", []),
    ({}, "process.oomScoreAdj", -997),
    ({}, "process.apparmorProfile", "containers-default"),
    ({}, "process.selinuxLabel", "system_u:system_r:container_t:s0:c1,c2"),
    ({}, "process.capabilities", None),
    ({}, "process.capabilities.bounding", []),
    ({}, "process.user.umask", 0o77),
    ({}, "process.user.additionalGids", None),
    ({}, "process.env", []),
    ({}, "hostname", "other"),
    ({}, "linux.resources.memory", {"limit": 1 << 20}),
    ({}, "linux.resources.unified", {"memory.high": "1"}),
    ({}, "linux.cgroupsPath", "kubepods.slice:cri-containerd:0123"),
    ({}, "linux.personality", {"domain": "LINUX32"}),
    ({}, "linux.namespaces.+", {"type": "user"}),
    ({}, "linux.namespaces.+", {"type": "cgroup"}),
    ({}, "linux.maskedPaths.+", "/sys/devices/virtual/powercap"),
    ({}, "linux.rootfsPropagation", "rslave"),
    ({}, "linux.sysctl", {"net.ipv4.ip_unprivileged_port_start": "0"}),
    ({}, "linux.seccomp.defaultAction", "SCMP_ACT_KILL_PROCESS"),
    ({}, "annotations", {"org.systemd.property.CollectMode": "'inactive-or-failed'"}),
    ({}, "mounts.+", bind("/data/", "/srv//data", "bind", "rro")),
    ({}, "mounts.+", bind("/data", "/srv/data", "rbind", "rw", "ro", kind="none")),
    ({}, "mounts.+", bind("/tmp", "tmpfs", "mode=1777", "size=1m", kind="tmpfs")),
    ({}, "linux.resources.devices.+", {"allow": False, "type": "c", "major": 10, "access": "rwm"}),
    ({}, "linux.resources.devices.+", {"allow": True, "type": "b", "access": "m"}),
    (
        {},
        "linux.resources.devices.+",
        {"allow": True, "type": "c", "major": 136, "access": "rwm"},
    ),
    ({}, "linux.devices", [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3}]),
    ({"argv": ((*ARGV, "..."),)}, "process.args.+", "--more"),
    ({"argv": (("re:/bin/[a-z]+", "..."),)}, "process.args", ["/bin/sh"]),
    ({"env": {**STRICT.env, "re:APP_[A-Z]+": "re:[0-9]+"}}, "process.env.+", "APP_X=1"),
    ({"users": ("re:[0-9]+:0",)}, "process.user.uid", 7),
    ({"new_privileges": True}, "process.noNewPrivileges", None),
    ({"writable_root": True}, "root.readonly", False),
    ({"unconfined": True}, "linux.seccomp", None),
    ({"unconfined": True}, "linux.seccomp.defaultAction", "SCMP_ACT_ALLOW"),
    ({"privileged": True}, "linux.maskedPaths", None),
    ({"privileged": True}, "linux.readonlyPaths", []),
    ({"privileged": True}, "linux.rootfsPropagation", "rshared"),
    ({"privileged": True}, "mounts.+", bind("/sys", "sysfs", kind="sysfs")),
    ({"privileged": True}, "mounts.+", bind("/data", "/srv/data", "bind", "ro", "rshared")),
    ({"host_namespaces": ("network",)}, "linux.namespaces.1", {"type": "cgroup"}),
    (
        {"devices": ("/dev/fuse c 10:229",)},
        "linux.devices",
        [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
    ),
    ({"devices": ("net eth1",)}, "linux.netDevices", {"eth1": {"name": "eth0"}}),
    (
        {"devices": ("re:c 195:([0-9]+|\\*)",)},
        "linux.resources.devices.+",
        {"allow": True, "type": "c", "major": 195, "access": "rw"},
    ),
    ({"sysctls": ("kernel.msgmax=65536",)}, "linux.sysctl", {"kernel.msgmax": "65536"}),
    (
        {"hooks": ("/usr/bin/hook hook 'two words'",)},
        "hooks.prestart",
        [{"path": "/usr/bin/hook", "args": ["hook", "two words"]}],
    ),
    (
        {"mounts": (*STRICT.mounts, MountRule(destination="/s", source="/run/docker.sock"))},
        "mounts.+",
        bind("/s", "/run/docker.sock", "bind", "ro"),
    ),
    (
        {"mounts": (*STRICT.mounts, MountRule(destination="/app", source=SHARE, type="tmpfs"))},
        "mounts.+",
        bind("/app", "/x", "ro", kind="tmpfs"),
    ),
]


@pytest.mark.parametrize(("wider", "path", "value"), ALLOWED)
def test_what_a_policy_allows_is_allowed(wider, path, value):
    policy = replace(STRICT, **wider)
    check_create(parsed(with_change(ordinary(), change(path, value))), policy, None, nobodys)


@pytest.mark.parametrize(("wider", "path", "value"), [one for one in ALLOWED if one[0]])
def test_what_a_wider_policy_allows_is_refused_without_it(wider, path, value):
    refusal(with_change(ordinary(), change(path, value)))


@pytest.mark.parametrize(
    "source",
    [
        "/",
        "/etc",
        "/etc/shadow",
        "/proc",
        "/proc/1/root",
        "/sys/kernel",
        "/dev",
        "/run",
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/containerd",
        "/run//containerd/./containerd.sock",
        "/run/crio/crio.sock",
        "/run/podman/podman.sock",
        "/run/catena",
        "/var/run/catena/gate.sock",
        "/var/lib/catena/images",
        "/var/lib",
        "/var/lib/kubelet",
        "",
    ],
)
def test_a_pattern_never_stands_for_a_path_of_the_hosts_own(source):
    rule = MountRule(destination="/host", source=SHARE, read_only=False)
    policy = replace(STRICT, mounts=(*STRICT.mounts, rule))
    allowed = change("mounts.+", bind("/host", "/srv/anything", "rbind"))
    check_create(parsed(with_change(ordinary(), allowed)), policy, None, nobodys)
    refused = change("mounts.+", bind("/host", source, "rbind", "ro"))
    assert refusal(with_change(ordinary(), refused), policy).code == "launch-mount"


# Namespaces of others --------------------------------------------------------------------------


def joining(kind: str, path: str) -> dict:
    config = ordinary()
    for one in config["linux"]["namespaces"]:
        if one["type"] == kind:
            one["path"] = path
    return config


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid"])
def test_a_pods_namespace_is_joined_only_where_the_policy_says_so(kind):
    config = joining(kind, "/proc/4711/ns/x")
    assert refusal(config, is_host=lambda *_: False).code == "launch-namespace"
    check_create(parsed(config), replace(STRICT, joins=(kind,)), None, lambda *_: False)


def test_the_hosts_namespace_is_not_a_pods_whatever_its_path_says():
    policy = replace(STRICT, joins=("network",))
    config = joining("network", "/proc/4711/ns/net")
    assert refusal(config, policy, is_host=lambda *_: True).code == "launch-namespace"
    host = replace(STRICT, host_namespaces=("network",))
    check_create(parsed(config), host, None, lambda *_: True)


def test_the_hosts_namespaces_are_told_by_what_is_behind_the_path(tmp_path):
    assert is_host_namespace("network", "/proc/self/ns/net")
    assert not is_host_namespace("network", "/proc/self/ns/mnt")
    link = tmp_path / "cni"
    link.symlink_to("/proc/self/ns/net")
    assert is_host_namespace("network", str(link))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces")
@pytest.mark.parametrize("kind", ["net", "ipc", "uts"])
def test_a_new_namespace_is_not_the_hosts(kind):
    words = ["unshare", f"--{kind}", "sleep", "60"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        try:
            made = Path(f"/proc/{process.pid}/ns/{kind}")
            own = Path(f"/proc/self/ns/{kind}").stat().st_ino
            for _ in range(1000):
                if made.stat().st_ino != own:
                    break
                time.sleep(0.01)
            assert not is_host_namespace("network" if kind == "net" else kind, str(made))
        finally:
            process.kill()


def test_where_nobody_can_look_at_the_hosts_namespace_nothing_is_joined(tmp_path):
    with pytest.raises(LaunchNamespace):
        is_host_namespace("network", "/proc/self/ns/net", (tmp_path,))


@pytest.mark.parametrize("path", ["/nowhere/at/all", "/proc/0/ns/net", "a\0b"])
def test_a_namespace_that_nobody_can_look_at_is_refused(path):
    with pytest.raises(LaunchNamespace):
        is_host_namespace("network", path)


# Words of the image ----------------------------------------------------------------------------

WORDS = replace(
    STRICT,
    argv=(("image:argv",),),
    env={**STRICT.env, "image:env": ""},
    cwd=("image:cwd",),
    users=("image:user",),
)


def test_words_of_the_image_stand_for_its_configuration():
    check_create(parsed(ordinary()), WORDS, image(), nobodys)


def test_without_the_images_configuration_no_word_holds():
    assert refusal(ordinary(), WORDS).code == "launch-argv"
    for field, code in (("cwd", "launch-directory"), ("users", "launch-user")):
        policy = replace(STRICT, **{field: getattr(WORDS, field)})
        assert refusal(ordinary(), policy).code == code
    policy = replace(STRICT, env={"image:env": ""})
    assert refusal(ordinary(), policy).code == "launch-env"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"argv": ("/bin/busybox",)}, "launch-argv"),
        ({"argv": ARGV[1:], "entrypoint": ARGV[:2]}, "launch-argv"),
        ({"argv": ()}, "launch-argv"),
        ({"cwd": "/app"}, "launch-directory"),
        ({"user": "1000"}, "launch-user"),
        ({"user": "0:7"}, "launch-user"),
        ({"user": "nobody"}, "launch-user"),
        ({"user": "root:7"}, "launch-user"),
    ],
)
def test_a_launch_that_differs_from_the_image_is_refused(changed, code):
    assert refusal(ordinary(), WORDS, image(**{"argv": ARGV, **changed})).code == code


@pytest.mark.parametrize(
    ("wanted", "uid", "gid", "allowed"),
    [
        ("", 0, 0, True),
        ("root", 0, 0, True),
        ("0", 0, 5, True),
        ("1000", 1000, 0, True),
        ("1000:50", 1000, 50, True),
        ("1000:50", 1000, 51, False),
        ("1000:staff", 1000, 51, True),
        ("1000", 0, 0, False),
        ("nobody", 65534, 65534, True),
        ("nobody", 0, 65534, False),
        ("nobody:7", 65534, 8, False),
        ("٣", 3, 0, False),
    ],
)
def test_the_images_user_is_told_by_its_numbers(wanted, uid, gid, allowed):
    config = ordinary()
    config["process"]["user"] = {"uid": uid, "gid": gid}
    if allowed:
        check_create(parsed(config), WORDS, image(user=wanted), nobodys)
    else:
        assert refusal(config, WORDS, image(user=wanted)).code == "launch-user"


def test_an_entrypoint_may_be_followed_by_rules():
    policy = replace(STRICT, argv=(("image:entrypoint", "re:[a-z]+", "..."),))
    own = image(ARGV[2:], entrypoint=ARGV[:1])
    check_create(parsed(ordinary()), policy, own, nobodys)
    assert refusal(ordinary(), policy, image(entrypoint=("/bin/sh",))).code == "launch-argv"
    assert refusal(ordinary(), policy, image()).code == "launch-argv"  # it has none


def test_the_images_variables_are_allowed_with_their_own_values_only():
    policy = replace(STRICT, env={**STRICT.env, "image:env": ""})
    own = image(env=(f"PATH={PATH}", "MODE=safe"))
    config = with_change(ordinary(), change("process.env.+", "MODE=safe"))
    check_create(parsed(config), policy, own, nobodys)
    unsafe = with_change(ordinary(), change("process.env.+", "MODE=unsafe"))
    refused = refusal(unsafe, policy, own)
    assert (refused.code, refused.got) == ("launch-env", "MODE")
    assert "unsafe" not in str(refused.as_dict())


# Exec and restore ------------------------------------------------------------------------------


def test_only_listed_commands_run_in_a_running_container():
    process = parsed(ordinary()).process
    assert isinstance(process, Process)
    check_exec(replace(process, args=("/bin/true",)), STRICT)
    with pytest.raises(ExecNotAllowed) as refused:
        check_exec(process, STRICT)
    assert (refused.value.expected, refused.value.got) == ("/bin/true", "/bin/busybox echo hi")
    with pytest.raises(ExecNotAllowed):
        check_exec(replace(process, args=("/bin/true",)), replace(STRICT, exec=()))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"env": ("LD_PRELOAD=x",)}, "launch-env"),
        ({"cwd": "/data"}, "launch-directory"),
        ({"no_new_privileges": False}, "launch-privileges"),
        ({"args": ()}, "exec-not-allowed"),
    ],
)
def test_an_exec_has_no_more_rights_than_a_start(changes, code):
    process = replace(parsed(ordinary()).started, **{"args": ("/bin/true",), **changes})
    with pytest.raises(LaunchRefused) as refused:
        check_exec(process, STRICT)
    assert refused.value.code == code


def test_a_checkpoint_is_restored_only_where_the_policy_says_so():
    with pytest.raises(RestoreNotAllowed):
        check_restore(STRICT)
    check_restore(replace(STRICT, restore=True))


# Policies that cannot be applied ----------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"argv": (("image:argv", "more"),)},
        {"argv": (("...",),)},
        {"argv": (("a", "...", "b"),)},
        {"argv": (("a", "image:argv"),)},
        {"argv": (("re:(a",),)},
        {"argv": (("re:(?=a)b",),)},
        {"argv": (("image:other",),)},
        {"env": {"image:env": "x"}},
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A": "image:env"}},
        {"users": ("image:argv",)},
        {"cwd": ("re:[",)},
        {"mounts": (MountRule(destination="/", source="/x"),)},
        {"capabilities": ("SYS_ADMIN",)},
        {"capabilities": ("CAP_ALL ",)},
        {"host_namespaces": ("mount",)},
        {"joins": ("net",)},
    ],
)
def test_a_policy_with_a_rule_that_cannot_be_applied_is_refused(changes):
    with pytest.raises(FormatError) as refused:
        compile_launch(replace(STRICT, **changes))
    assert refused.value.code == "launch-policy-unusable"
    assert refused.value.exit_code == 13


def test_a_policy_without_commands_allows_none():
    assert refusal(ordinary(), replace(STRICT, argv=())).code == "launch-argv"
    assert LaunchPolicy(name="x", version=1, argv=()).mounts == ()


def test_a_long_value_matches_no_pattern():
    config = with_change(ordinary(), change("process.env.+", f"TOKEN={'a' * 40_000}"))
    with pytest.raises(LaunchEnv):
        check_create(parsed(config), STRICT, None, nobodys)
