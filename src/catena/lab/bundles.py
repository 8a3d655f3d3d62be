"""What an orchestrator hands to a runtime: a configuration (OCI Runtime 1.0.2) and layers.

The configuration is what ``runc spec`` writes for a process without privileges, with the lab's
one secret mounted read-only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from catena.lab.images import PATH, Image, Layer

_KERNEL_FILE_SYSTEMS = (
    ("/proc", "proc", "proc", ()),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),  # noqa: S108 - in the container
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
)
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
_MASKED = (
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_SYSTEM_CALLS = """
    access arch_prctl brk capget capset chdir clock_gettime clock_nanosleep clone clone3 close
    close_range dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait eventfd2 execve exit exit_group
    faccessat faccessat2 fchdir fcntl fstat fstatfs futex getcwd getdents64 getegid geteuid getgid
    getgroups getpgrp getpid getppid getrandom getrlimit gettid getuid ioctl kill lseek lstat
    madvise mmap mprotect mremap munmap nanosleep newfstatat open openat pipe pipe2 poll ppoll
    prctl pread64 prlimit64 read readlink readlinkat readv rseq rt_sigaction rt_sigprocmask
    rt_sigreturn rt_sigsuspend sched_getaffinity sched_yield sendfile set_robust_list
    set_tid_address setgid setgroups setpgid setsid setuid sigaltstack splice stat statfs statx
    sysinfo tgkill time umask uname unlink vfork wait4 waitid write writev
"""
"""What busybox needs, and runc until it executes it."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A file of the node that a container sees, read-only."""

    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """One thing to run: layers (bottom first), a command line, one mount."""

    name: str
    layers: tuple[Layer, ...]
    argv: tuple[str, ...]
    mount: Mount

    def stage(self, root: Path) -> None:
        """Write ``bundles/NAME`` and the layers that are not in ``layers`` yet."""
        names = [layer.diff_id.replace(":", "-") for layer in reversed(self.layers)]
        for layer, name in zip(reversed(self.layers), names, strict=True):
            if not (root / "layers" / name).exists():
                layer.unpack(root / "layers" / name)
        folder = root / "bundles" / self.name
        folder.mkdir(parents=True)
        (folder / "layers").write_text("\n".join(names) + "\n")
        (folder / "config.json").write_bytes(self.config())

    def config(self) -> bytes:
        """The runtime's ``config.json``; the root file system is mounted by who runs it."""
        mounts = [
            {"destination": where, "type": kind, "source": source, "options": list(options)}
            for where, kind, source, options in _KERNEL_FILE_SYSTEMS
        ]
        mounts.append(
            {
                "destination": self.mount.destination,
                "type": "bind",
                "source": self.mount.source,
                "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
            }
        )
        return msgspec.json.encode(
            {
                "ociVersion": "1.0.2",
                "process": {
                    "user": {"uid": 0, "gid": 0},
                    "args": list(self.argv),
                    "env": [f"PATH={PATH}"],
                    "cwd": "/",
                    "capabilities": {},
                    "noNewPrivileges": True,
                },
                "root": {"path": "rootfs"},
                "hostname": "lab",
                "mounts": mounts,
                "linux": {
                    "resources": {"devices": [{"allow": False, "access": "rwm"}]},
                    "namespaces": [{"type": kind} for kind in _NAMESPACES],
                    "maskedPaths": list(_MASKED),
                    "readonlyPaths": list(_READ_ONLY),
                    "seccomp": {
                        "defaultAction": "SCMP_ACT_ERRNO",
                        "architectures": ["SCMP_ARCH_X86_64"],
                        "syscalls": [{"names": _SYSTEM_CALLS.split(), "action": "SCMP_ACT_ALLOW"}],
                    },
                },
            }
        )


def of(name: str, image: Image, mount: Mount) -> Bundle:
    """The image as its publisher means it to be run."""
    return Bundle(name, image.layers, image.entrypoint, mount)
