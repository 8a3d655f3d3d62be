"""The lab's operating system before it becomes a release: Debian, a kernel, the agent.

``debootstrap`` fetches the packages once into the cache; every later tree unpacks that.
What the agent needs is copied from the environment that runs this command, so the node runs
exactly the code beside this module.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import importlib.metadata
import py_compile
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import catena
from catena.containers.engines import Engine
from catena.containers.install import RECORD, Installer
from catena.lab import tools
from catena.osimage.tool import ToolFailed

SUITE = "bookworm"
PACKAGES = (
    "busybox",
    "containerd",
    "cryptsetup-bin",
    "iproute2",
    "kmod",
    "libtss2-esys-3.0.2-0",
    "libtss2-fapi1",
    "libtss2-mu0",
    "libtss2-rc0",
    "libtss2-tctildr0",
    "libtss2-tcti-device0",
    "python3",
    "runc",
    "systemd",
    "systemd-sysv",
)
KERNEL_PACKAGE = "linux-image-cloud-amd64"
AGENT_LIBRARIES = ("click", "cryptography", "msgspec", "tpm2-pytss")
AGENT_ROOMS = ("__init__.py", "errors.py", "ids.py", "evidence.py")
AGENT_ROOM_FOLDERS = ("formats", "tpm", "keys", "containers", "agent")
AGENT_COMMANDS = ("__init__.py", "main.py", "output.py", "agent.py")

_DEBOOTSTRAP_SECONDS = 900.0
_DOWNLOAD_SECONDS = 300.0
_UNPACK_SECONDS = 120.0

MASKED_UNITS = (
    # These measure into PCR 11 from user space without a log that explains it (systemd 252).
    "systemd-pcrphase-initrd.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    # A read-only node has nothing to update, scrub, trim or remember, and no console login.
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "getty-static.service",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-journal-flush.service",
    "systemd-random-seed.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-user-sessions.service",
    # Nor modules beyond the initrd's, nor what debuggers and databases mount.
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-modules-load.service",
)

MASKED_GENERATORS = (
    # Units come from the verified root alone, never from what a generator finds on a disk.
    "systemd-cryptsetup-generator",
    "systemd-debug-generator",
    "systemd-fstab-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-system-update-generator",
    "systemd-sysv-generator",
    "systemd-veritysetup-generator",
)

RUNC = Path("/usr/sbin/runc")
GATE_SOCKET = Path("/run/catena-gate/gate.sock")
CONTAINER_RECORD = Path("/run/catena-gate/containers.cel")
UNUSED_PROGRAMS = (
    "usr/bin/containerd-shim",
    "usr/bin/containerd-shim-runc-v1",
)
"""Parts of containerd that no node needs: shims of older protocols."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of downloads that can be deleted at any time and is rebuilt when needed."""

    folder: Path

    def packages(self, progress: Progress) -> Path:
        """The Debian tree as a tar archive; made with debootstrap the first time."""
        recipe = hashlib.sha256("\n".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
        archive = self.folder / f"debian-{SUITE}-{recipe}.tar"
        if archive.exists():
            return archive
        progress(f"debootstrap {SUITE} into {self.folder} (once)")
        with self.scratch("debootstrap-") as scratch:
            if archive.exists():
                return archive
            root = scratch / "root"
            root.mkdir(mode=0o755)
            tools.run_apart(
                tools.DEBOOTSTRAP,
                ("--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, root),
                seconds=_DEBOOTSTRAP_SECONDS,
            )
            partial = scratch / "tree.tar"
            tools.run(
                tools.TAR,
                (
                    *("-C", root, "--numeric-owner", "--sort=name", "-cf", partial),
                    *("--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*", "."),
                ),
                seconds=_UNPACK_SECONDS,
            )
            partial.replace(archive)
        return archive

    def kernel(self, progress: Progress) -> Path:
        """The kernel package unpacked: holds ``boot/vmlinuz-*`` and ``lib/modules/*``."""
        package = kernel_package()
        unpacked = self.folder / package
        if unpacked.exists():
            return unpacked
        progress(f"download {package} (once)")
        with self.scratch("kernel-") as folder:
            if unpacked.exists():
                return unpacked
            # apt's sandbox user cannot write to a private folder; root downloads instead.
            options = ("-o", "APT::Sandbox::User=root")
            tools.run(
                tools.APT_GET,
                (*options, "download", package),
                seconds=_DOWNLOAD_SECONDS,
                cwd=folder,
            )
            deb = next(folder.glob("*.deb"))
            tools.run(tools.DPKG_DEB, ("-x", deb, folder / "unpacked"), seconds=_UNPACK_SECONDS)
            (folder / "unpacked").replace(unpacked)
        return unpacked

    @contextmanager
    def scratch(self, prefix: str) -> Iterator[Path]:
        """A folder for half-made things, for one command at a time.

        Waits while another lab fills the cache; what a killed one left goes first.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=prefix) as scratch:
                yield Path(scratch)


def kernel_package() -> str:
    """The concrete package behind Debian's newest cloud kernel, with its ABI in the name."""
    shown = tools.run(tools.APT_CACHE, ("depends", KERNEL_PACKAGE), seconds=_UNPACK_SECONDS)
    found = re.search(r"Depends: (linux-image-\d\S+)", shown)
    if found is None:
        raise ToolFailed(
            f"apt does not know {KERNEL_PACKAGE}; run apt-get update", got=shown.strip()[:120]
        )
    return found.group(1)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node must know before it boots, all of it covered by the verity root."""

    server_url: str
    cluster_ca: bytes
    interval: int
    container_policy: bytes
    release_key: bytes
    sealed_copy: str | None = None


def make_tree(root: Path, cache: Cache, settings: NodeSettings, progress: Progress) -> None:
    """Fill the new directory ``root`` with the node's operating system.

    A failure leaves no half of it.
    """
    archive = cache.packages(progress)
    progress("unpack Debian and put the agent into it")
    root.mkdir(mode=0o755)
    try:
        tools.run(
            tools.TAR,
            ("-C", root, "--numeric-owner", "-xpf", archive),
            seconds=_UNPACK_SECONDS,
        )
        _install_agent(root)
        _configure(root, settings)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise


def _install_agent(root: Path) -> None:
    packages = root / "usr/lib/python3/dist-packages"
    for source, target in _library_files(AGENT_LIBRARIES):
        _copy(source, packages / target)
    home = Path(catena.__file__).parent
    for name in AGENT_ROOMS:
        _copy(home / name, packages / "catena" / name)
    for folder in AGENT_ROOM_FOLDERS:
        for source in sorted((home / folder).rglob("*")):
            if source.is_file() and "__pycache__" not in source.parts:
                _copy(source, packages / "catena" / source.relative_to(home))
    for name in AGENT_COMMANDS:
        _copy(home / "cli" / name, packages / "catena/cli" / name)
    _install_wrapper(root)
    _compile(root, packages)


def _install_wrapper(root: Path) -> None:
    """The gate's wrapper before runc, for containerd and everybody else who looks on the PATH."""
    Installer(root).install((Engine.CONTAINERD,), runtime=RUNC, gate=GATE_SOCKET)
    shutil.rmtree(root / RECORD.relative_to("/"))  # a release is never undone in place


def _compile(root: Path, packages: Path) -> None:
    """Compile Python once here, not at every boot; hash-based, so no time gets into it.

    The tree's Python and ours must be the same version for that; otherwise the node compiles.
    """
    if not (root / f"usr/bin/python3.{sys.version_info.minor}").exists():
        return
    for folder in (packages, root / f"usr/lib/python3.{sys.version_info.minor}"):
        compileall.compile_dir(
            folder,
            quiet=2,
            stripdir=str(root),
            prependdir="/",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def _library_files(names: tuple[str, ...]) -> Iterator[tuple[Path, Path]]:
    """Files of these distributions and all they require: (where it is, where it goes)."""
    todo, seen = list(names), set[str]()
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        distribution = importlib.metadata.distribution(name)
        todo += [
            matched.group()
            for requirement in distribution.requires or ()
            if "extra ==" not in requirement
            and _applies(requirement)
            and (matched := re.match(r"[\w.-]+", requirement))
        ]
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                yield Path(str(file.locate())), Path(file)


def _applies(requirement: str) -> bool:
    """Whether a requirement without extras is installed here (markers decided that)."""
    name = re.match(r"[\w.-]+", requirement)
    try:
        importlib.metadata.distribution(name.group() if name else "")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o644)


def _configure(root: Path, settings: NodeSettings) -> None:
    """Everything under /etc that makes this Debian a catena node."""
    here = Path(__file__).parent / "node"
    systemd = root / "etc/systemd/system"
    for unit in MASKED_UNITS:
        (systemd / unit).unlink(missing_ok=True)
        (systemd / unit).symlink_to("/dev/null")
    generators = root / "etc/systemd/system-generators"
    generators.mkdir(exist_ok=True)
    for generator in MASKED_GENERATORS:
        (generators / generator).symlink_to("/dev/null")
    (systemd / "default.target").unlink(missing_ok=True)
    (systemd / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    for name in ("agent", "gate"):
        unit = f"catena-{name}.service"
        _copy(Path(catena.__file__).parent / "agent" / unit, systemd / unit)
        _copy(here / f"10-lab-{name}.conf", systemd / f"{unit}.d/10-lab.conf")
    for unit in ("lab-orders.service", "lab-orders.path"):
        _copy(here / unit, systemd / unit)
    _copy(here / "orders.py", root / "usr/lib/catena-lab/orders.py")
    _copy(here / "50-lab.network", root / "etc/systemd/network/50-lab.network")
    _enable(root, "multi-user.target", "catena-agent.service")
    _enable(root, "multi-user.target", "catena-gate.service")
    _enable(root, "multi-user.target", "lab-orders.path")
    _enable(root, "multi-user.target", "systemd-networkd.service", vendor=True)
    for unused in UNUSED_PROGRAMS:
        (root / unused).unlink()
    (systemd / "multi-user.target.wants/containerd.service").unlink()
    catena_etc = root / "etc/catena"
    (catena_etc / "containers").mkdir(parents=True)
    (catena_etc / "containers/policy.dsse.json").write_bytes(settings.container_policy)
    (catena_etc / "containers/release.pub").write_bytes(settings.release_key)
    _copy(here / "gate.toml", catena_etc / "gate.toml")
    (catena_etc / "cluster-ca.pem").write_bytes(settings.cluster_ca)
    (catena_etc / "agent.toml").write_text(_agent_toml(settings))
    # Empty: systemd makes a transient id; nothing on a read-only root can hold one.
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text("catena-node\n")
    (root / "etc/fstab").write_text("")
    command = root / "usr/bin/catena"
    command.write_text("#!/usr/bin/python3\nfrom catena.cli.main import main\n\nmain()\n")
    command.chmod(0o755)


def _agent_toml(settings: NodeSettings) -> str:
    lines = [
        f'server = "{settings.server_url}"',
        'ca = "/etc/catena/cluster-ca.pem"',
        f"interval = {settings.interval}",
        f'container_record = "{CONTAINER_RECORD}"',
    ]
    if settings.sealed_copy is not None:
        lines.append(f'sealed_copy = "{settings.sealed_copy}"')
    return "\n".join(lines) + "\n"


def _enable(root: Path, target: str, unit: str, *, vendor: bool = False) -> None:
    wants = root / f"etc/systemd/system/{target}.wants"
    wants.mkdir(parents=True, exist_ok=True)
    folder = "/usr/lib/systemd/system" if vendor else "/etc/systemd/system"
    link = wants / unit
    link.unlink(missing_ok=True)
    link.symlink_to(f"{folder}/{unit}")
