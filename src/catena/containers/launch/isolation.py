"""What keeps a container apart from its host: namespaces, devices, hooks, seccomp, /proc and /sys.

Each function looks at one kind of setting and raises its own ``LaunchRefused``.

**Namespaces.** New ones of pid, mount, network, ipc and uts are the rule. What is left out is the
host's and needs ``host_namespaces``; a mount namespace is always new. A container of a pod joins its
sandbox by a path, and no text says whose namespace is behind it: ``is_host`` looks.

**Devices.** The device cgroup has to start with "deny all"; runtimes keep the kernel's own behaviour
otherwise, which is to allow. A device is its numbers: a rule on a path alone would let ``/dev/fuse``
be a disk.

**Hooks** run with the host's files before and after the container's own process, all kinds but one.
Their variables are refused: ``LD_PRELOAD`` would be one.

**Seccomp.** A filter counts if its default is to refuse and if no other program answers system calls
in the kernel's place. One that refuses *and reports success* makes setuid(2) a lie.

**Paths.** The masked and read-only paths that every engine sets have to be there. More of them may be
only below /proc and /sys: masking a file of the image changes what it does.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from catena.containers.launch.host import IsHost
from catena.containers.launch.mounts import clean
from catena.containers.launch.refusals import (
    LaunchAnnotation,
    LaunchDevice,
    LaunchHook,
    LaunchNamespace,
    LaunchPrivileges,
    LaunchSeccomp,
    LaunchSysctl,
    listed,
    shown,
)
from catena.containers.launch.rules import NAMESPACES, CompiledLaunch
from catena.formats.runtime import Hook, Hooks, Linux
from catena.formats.runtimespec import DeviceRule, Resources, Seccomp

_REQUIRED_NAMESPACES = ("mount", "pid", "network", "ipc", "uts")

_DEFAULT_DEVICES = {
    "/dev/null": "c 1:3",
    "/dev/zero": "c 1:5",
    "/dev/full": "c 1:7",
    "/dev/random": "c 1:8",
    "/dev/urandom": "c 1:9",
    "/dev/tty": "c 5:0",
    "/dev/ptmx": "c 5:2",
}
_DEFAULT_NUMBERS = frozenset({*_DEFAULT_DEVICES.values(), "c 5:1", "c 136:*"})
"""With the console and the pseudo-terminals, which runtimes always allow."""
_MAKE_ONLY = "m"
"""Access that lets a node be made and not opened; runtimes allow it for all numbers."""

_DENYING = frozenset(
    {
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
    }
)
_ACTIONS = _DENYING | {"SCMP_ACT_ALLOW", "SCMP_ACT_LOG"}

_MASKED = frozenset(
    {
        "/proc/acpi",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
    }
)
_READ_ONLY = frozenset({"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"})
_KERNEL_TREES = ("/proc/", "/sys/")
_PROPAGATIONS = frozenset({"", "private", "rprivate", "slave", "rslave"})
_PERSONALITIES = frozenset({"LINUX", "LINUX32"})

_SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
"""Those that Kubernetes lets every pod set (1.32); they belong to the pod's own namespaces."""
_CGROUP_CONTROL = "cgroup."
"""``cgroup.procs`` and its like move and kill processes."""

_ORDERS = (
    "org.systemd.property.",
    "org.criu.",
    "run.oci.",
    "module.wasm.",
    "io.katacontainers.",
)
_HARMLESS_ORDERS = frozenset(
    f"org.systemd.property.{name}"
    for name in ("TimeoutStopUSec", "CollectMode", "DefaultDependencies", "After")
)
"""CRI-O writes these for every container."""


def check_namespaces(linux: Linux, policy: CompiledLaunch, is_host: IsHost) -> None:
    """Raises ``LaunchNamespace``."""
    shared = frozenset(policy.document.host_namespaces)
    present = set[str]()
    for one in linux.namespaces or ():
        if one.type in present or one.type not in NAMESPACES:
            raise LaunchNamespace(
                "a namespace that is unknown or stands twice", got=shown(one.type)
            )
        present.add(one.type)
        if one.path:
            _check_joined(one.type, one.path, policy, is_host)
    missing = [kind for kind in _REQUIRED_NAMESPACES if kind not in present | shared]
    if missing:
        raise LaunchNamespace(
            f"the container would share the host's {missing[0]} namespace",
            expected="namespaces " + " ".join(_REQUIRED_NAMESPACES),
            got=listed(sorted(present)),
        )


def _check_joined(kind: str, path: str, policy: CompiledLaunch, is_host: IsHost) -> None:
    if kind == "mount":
        raise LaunchNamespace("a mount namespace that is not new", got=shown(path))
    host = is_host(kind, path)
    if kind not in (policy.document.host_namespaces if host else policy.document.joins):
        whose = "the host's" if host else "another container's"
        raise LaunchNamespace(f"the container would join {whose} {kind} namespace", got=shown(path))


def check_devices(linux: Linux, policy: CompiledLaunch) -> None:
    """Raises ``LaunchDevice``."""
    numbers = set(_DEFAULT_NUMBERS)
    for one in linux.devices or ():
        if _DEFAULT_DEVICES.get(one.path) == one.numbers:
            continue
        _require_device(f"{one.path} {one.numbers}", policy)
        numbers.add(one.numbers)
    for name in linux.net_devices or {}:
        _require_device(f"net {name}", policy)
    _check_device_cgroup((linux.resources or Resources()).devices or (), numbers, policy)


def _check_device_cgroup(
    rules: tuple[DeviceRule, ...], numbers: set[str], policy: CompiledLaunch
) -> None:
    everything = policy.document.privileged
    if not everything and (not rules or not _denies_all(rules[0])):
        raise LaunchDevice("the device cgroup does not begin with deny all")
    for rule in rules:
        if not rule.allow or rule.access == _MAKE_ONLY or rule.numbers in numbers:
            continue
        _require_device(rule.numbers, policy)


def _denies_all(rule: DeviceRule) -> bool:
    return not rule.allow and rule.numbers == "a *:*" and set(rule.access) == set("rwm")


def _require_device(text: str, policy: CompiledLaunch) -> None:
    if not any(matches(text) for matches in policy.devices):
        raise LaunchDevice(
            "access to a device that no rule names",
            expected=listed(policy.document.devices),
            got=shown(text),
        )


def check_hooks(hooks: Hooks | None, policy: CompiledLaunch) -> None:
    """Raises ``LaunchHook``."""
    for hook in hooks.all if hooks else ():
        text = _hook_text(hook)
        if hook.env or not any(matches(text) for matches in policy.hooks):
            raise LaunchHook(
                "a hook has variables of its own" if hook.env else "a hook that no rule names",
                expected=listed(policy.document.hooks),
                got=shown(text),
            )


def _hook_text(hook: Hook) -> str:
    return shlex.join((hook.path, *(hook.args or ())))


def check_seccomp(seccomp: Seccomp | None, policy: CompiledLaunch) -> None:
    """Raises ``LaunchSeccomp``."""
    if policy.document.unconfined and seccomp is None:
        return
    if seccomp is None:
        raise LaunchSeccomp("there is no system call filter")
    if seccomp.default_action not in _DENYING and not policy.document.unconfined:
        raise LaunchSeccomp(
            "the filter allows by default",
            expected=" ".join(sorted(_DENYING)),
            got=shown(seccomp.default_action),
        )
    if seccomp.listener_path or seccomp.listener_metadata:
        raise LaunchSeccomp(
            "another program would answer system calls", got=shown(seccomp.listener_path)
        )
    _check_actions(seccomp)


def _check_actions(seccomp: Seccomp) -> None:
    rules = [(one.action, one.errno_ret) for one in seccomp.syscalls or ()]
    for action, errno in (*rules, (seccomp.default_action, seccomp.default_errno_ret)):
        if action not in _ACTIONS:
            raise LaunchSeccomp("a filter with an action that is not allowed", got=shown(action))
        if action == "SCMP_ACT_ERRNO" and errno is not None and errno < 1:
            raise LaunchSeccomp("a filter that refuses a system call and reports success")


def check_kernel_paths(linux: Linux, policy: CompiledLaunch) -> None:
    """Raises ``LaunchPrivileges`` for what masked and read-only paths lack, or hide beyond need."""
    masked, read_only = set(linux.masked_paths or ()), set(linux.readonly_paths or ())
    for path in masked | read_only:
        if not f"{clean(path)}/".startswith(_KERNEL_TREES):
            raise LaunchPrivileges("a path of the image would be hidden", got=shown(path))
    if policy.document.privileged:
        return
    bare = sorted((_MASKED - masked) | (_READ_ONLY - read_only - masked))
    if bare:
        raise LaunchPrivileges(f"{bare[0]} would be open", expected="masked and read-only paths")


def check_switches(linux: Linux, policy: CompiledLaunch) -> None:
    """Raises ``LaunchPrivileges`` for propagation, personality or a cgroup that lead outside."""
    document = policy.document
    if linux.rootfs_propagation not in _PROPAGATIONS and not document.privileged:
        raise LaunchPrivileges(
            "mounts would be shared with the host", got=shown(linux.rootfs_propagation)
        )
    mode = linux.personality
    if mode is not None and (mode.domain not in _PERSONALITIES or mode.flags):
        raise LaunchPrivileges("a personality(2) that weakens the process", got=shown(mode.domain))
    cgroup = linux.cgroups_path
    if (cgroup and not cgroup.strip("/")) or ".." in cgroup.split("/"):
        raise LaunchPrivileges("a cgroup that is not below one of the engine's", got=shown(cgroup))
    group = linux.intel_rdt.clos_id if linux.intel_rdt else ""
    if "/" in group or group in {".", ".."}:
        raise LaunchPrivileges("an RDT group that is a path", got=shown(group))


def check_sysctls(linux: Linux, policy: CompiledLaunch) -> None:
    """Raises ``LaunchSysctl``."""
    for name, value in (linux.sysctl or {}).items():
        text = f"{name}={value}"
        if name not in _SAFE_SYSCTLS and not any(matches(text) for matches in policy.sysctls):
            raise LaunchSysctl(
                "a kernel parameter that no rule names",
                expected=listed(policy.document.sysctls),
                got=shown(text),
            )
    for name in (linux.resources or Resources()).unified or {}:
        if "/" in name or name.startswith(_CGROUP_CONTROL):
            raise LaunchSysctl("a cgroup's file that limits nothing", got=shown(name))


def check_annotations(annotations: Mapping[str, str] | None) -> None:
    """Raises ``LaunchAnnotation``."""
    for name in annotations or {}:
        if name.startswith(_ORDERS) and name not in _HARMLESS_ORDERS:
            raise LaunchAnnotation("an annotation that is an order to the runtime", got=shown(name))
