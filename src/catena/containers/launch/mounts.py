"""Mounts: the kernel's own file systems as containers usually get them, and what rules allow.

A mount needs no rule if it is one of these, with no option that is not a plain one, and nothing
of the host in it:

============  =========================================  ==================================
type          where                                      besides
============  =========================================  ==================================
``proc``      /proc
``sysfs``     /sys                                       read-only
``cgroup``    /sys/fs/cgroup                             read-only (``cgroup2``, too)
``devpts``    /dev/pts
``mqueue``    /dev/mqueue
``tmpfs``     /dev, /dev/shm, /run, /run/lock, /tmp,     elsewhere it would hide the image's
              /var/tmp                                   files
============  =========================================  ==================================

An option ``bind`` or ``rbind`` makes a mount a bind mount whatever its type says (runc and crun
both do so). Of ``ro`` and ``rw`` the last one counts. Nothing may be mounted on ``/``. A
pattern never stands for a path of the host's own (``/``, ``/proc``, ``/dev``, an engine's socket, a
folder with such a thing in it): a rule has to write it out.

Sources are judged as texts. Engines resolve links before they write a configuration; whoever
can change links on the host can do anything.
"""

from __future__ import annotations

from catena.containers.launch.refusals import LaunchMount, shown
from catena.containers.launch.rules import CompiledLaunch, CompiledMount
from catena.formats.runtime import Mount

MAX_PATH = 4096

_PLACES = {
    "proc": frozenset({"/proc"}),
    "sysfs": frozenset({"/sys"}),
    "cgroup": frozenset({"/sys/fs/cgroup"}),
    "cgroup2": frozenset({"/sys/fs/cgroup"}),
    "devpts": frozenset({"/dev/pts"}),
    "mqueue": frozenset({"/dev/mqueue"}),
    "tmpfs": frozenset({"/dev", "/dev/shm", "/run", "/run/lock", "/tmp", "/var/tmp"}),  # noqa: S108  places in a container
}
_READ_ONLY_TYPES = frozenset({"sysfs", "cgroup", "cgroup2"})
_READ_ONLY = frozenset({"ro", "rro"})
_BIND = frozenset({"bind", "rbind"})
_SHARED = frozenset({"shared", "rshared"})
_FLAGS = frozenset(
    (
        *("ro", "rw", "rro", "nosuid", "suid", "nodev", "dev", "noexec", "exec"),
        *("rnosuid", "rnodev", "rnoexec", "sync", "async", "dirsync", "defaults"),
        *("relatime", "norelatime", "noatime", "atime", "nodiratime", "diratime"),
        *("rrelatime", "rnoatime", "strictatime", "nostrictatime", "lazytime", "nolazytime"),
        *("private", "rprivate", "slave", "rslave", "unbindable", "runbindable"),
        *("tmpcopyup", "newinstance", "nosymfollow", "idmap", "ridmap", "z", "Z"),
    )
)
_VALUES = {
    "tmpfs": frozenset({"mode", "size", "uid", "gid", "nr_inodes", "nr_blocks", "huge"}),
    "devpts": frozenset({"mode", "ptmxmode", "gid", "uid", "max"}),
    "proc": frozenset({"hidepid", "subset"}),
}
_LABEL = "context"
"""SELinux labels are for the administrator: they only ever take away."""

_TREES = (
    *("/proc", "/sys", "/dev", "/boot", "/etc", "/root", "/run/catena", "/var/lib/catena"),
    *("/var/lib/kubelet/pki", "/run/systemd", "/usr", "/bin", "/sbin", "/lib", "/lib64"),
)
_EXACT = (
    *("/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"),
    *("/run/containerd/containerd.sock.ttrpc", "/run/crio/crio.sock", "/run/cri-dockerd.sock"),
    *("/run/dbus/system_bus_socket", "/var/lib/containerd", "/var/lib/docker"),
    *("/var/lib/containers", "/var/lib/kubelet", "/var/log", "/home"),
)
_PARENTS = frozenset(
    path.rsplit("/", count)[0] or "/"
    for path in (*_TREES, *_EXACT)
    for count in range(1, path.count("/") + 1)
)


def check_mounts(mounts: tuple[Mount, ...], policy: CompiledLaunch) -> None:
    """Raises ``LaunchMount`` for the first mount that neither is the kernel's nor has a rule."""
    for mount in mounts:
        check_mount(mount, policy)


def check_mount(mount: Mount, policy: CompiledLaunch) -> None:
    """Raises ``LaunchMount``."""
    destination = clean(mount.destination)
    if not destination.startswith("/") or destination == "/":
        raise LaunchMount(
            "a mount in a place that is none",
            expected="an absolute path below /",
            got=shown(mount.destination),
        )
    options = mount.options or ()
    _check_options(mount, options, policy)
    if not mount.is_bind and destination in _PLACES.get(mount.type, ()):
        _check_kernel(mount, options, policy)
    else:
        _check_rule(mount, destination, options, policy)


def clean(path: str) -> str:
    """``path`` without repeated and last slashes and ``.``. Raises ``LaunchMount`` for ``..``."""
    if len(path) > MAX_PATH:
        raise LaunchMount("a path is too long", expected=f"at most {MAX_PATH} characters")
    parts = path.split("/")
    if ".." in parts:
        raise LaunchMount("a path that leads back up", got=shown(path))
    short = "/".join(part for part in parts if part not in {"", "."})
    return f"/{short}" if path.startswith("/") else short


def is_read_only(options: tuple[str, ...]) -> bool:
    """Whether the last word about it says so."""
    last = next((one for one in reversed(options) if one in _READ_ONLY or one == "rw"), "rw")
    return last in _READ_ONLY


def _check_options(mount: Mount, options: tuple[str, ...], policy: CompiledLaunch) -> None:
    allowed = _FLAGS | (_BIND if mount.is_bind else frozenset())
    if policy.document.privileged:
        allowed |= _SHARED
    named = _VALUES.get(mount.type, frozenset())
    for option in options:
        name, equals, _ = option.partition("=")
        if option in allowed or (equals and (name in named or name == _LABEL)):
            continue
        raise LaunchMount(
            f"a mount on {shown(mount.destination)} has an option that is not allowed",
            got=shown(option),
        )


def _check_kernel(mount: Mount, options: tuple[str, ...], policy: CompiledLaunch) -> None:
    if mount.type not in _READ_ONLY_TYPES or policy.document.privileged:
        return
    if not is_read_only(options):
        raise LaunchMount(
            f"{mount.type} on {shown(mount.destination)} is writable", expected="option ro"
        )


def _check_rule(
    mount: Mount, destination: str, options: tuple[str, ...], policy: CompiledLaunch
) -> None:
    source = clean(mount.source)
    kind = "bind" if mount.is_bind else mount.type
    read_only = is_read_only(options)
    writable = False
    for one in policy.mounts.on(destination, kind):
        if _is_source(one, source, bind=mount.is_bind):
            if read_only or not one.rule.read_only:
                return
            writable = True
    if writable:
        raise LaunchMount(f"a mount on {shown(destination)} is writable", expected="option ro")
    sources = [shown(one.rule.source) for one in policy.mounts.on(destination, kind)]
    raise LaunchMount(
        f"nothing of this kind may be mounted on {shown(destination)}",
        expected=" or ".join(sources[:3]) or "no mount",
        got=shown(f"{kind} {mount.source}"),
    )


def _is_source(rule: CompiledMount, source: str, *, bind: bool) -> bool:
    if bind and not rule.literal and _is_of_the_host(source):
        return False
    return rule.source(source)


def _is_of_the_host(source: str) -> bool:
    path = source if source.startswith("/") else f"/{source}"
    if path.startswith("/var/run/"):
        path = path.removeprefix("/var")
    if path in _EXACT or path in _PARENTS:
        return True
    return any(path == tree or path.startswith(f"{tree}/") for tree in _TREES)
