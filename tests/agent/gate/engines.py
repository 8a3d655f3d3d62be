"""Engines of a test's own, with the wrapper where they expect runc: containerd with ctr, and podman."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import msgspec
from node import Node
from standing import SECONDS, finished

from catena.containers.engines import docker_config, podman_drop_in
from catena.formats.launchpolicy import LaunchPolicy
from living import mounts_below

CONTAINERD = """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{0}/c.sock"
[ttrpc]
  address = "{0}/t.sock"
"""
LIMITS = """[containers]
default_ulimits = ["nofile=1024:20000", "nproc=4096:4096"]
"""
SKOPEO = ("skopeo", "copy", "-q", "--insecure-policy")
NEEDED = ("podman", "conmon", "containerd", "ctr", "skopeo")


FOLDERS = {
    "/(run|var/lib)/containerd/": "/(root|state)/",
    "/var/lib/docker/containers/": "/root/containers/",
    "/var/lib/kubelet/": "/kubelet/",
}
"""Where engines keep the files that they mount, and where a test's have them."""


def moved(policy: LaunchPolicy, folder: Path) -> LaunchPolicy:
    """The policy for engines below ``folder`` instead of in their usual places."""
    text = msgspec.json.encode(policy).decode()
    for usual, own in FOLDERS.items():
        assert usual in text
        text = text.replace(usual, f"{folder}{own}")
    return msgspec.json.decode(text, type=LaunchPolicy)


def missing() -> str:
    """Why engines cannot run here, or nothing."""
    absent = [one for one in NEEDED if shutil.which(one) is None]
    if os.geteuid() != 0 or absent:
        return f"needs root and {', '.join(absent or NEEDED)}"
    return "" if "overlay" in Path("/proc/filesystems").read_text() else "needs overlayfs"


class Ctr:
    """containerd and ``ctr``; the wrapper is the ``runc`` on containerd's PATH."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.folder = folder
        self.namespace = f"gate-{os.getpid()}"
        first = self.folder / "bin"
        first.mkdir(parents=True)
        shutil.copy(node.wrapper, first / "runc")
        (self.folder / "config.toml").write_text(CONTAINERD.format(self.folder))
        environment = {**os.environ, "PATH": f"{first}:{os.environ['PATH']}"}
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["containerd", "-c", self.folder / "config.toml"],
                stdout=log,
                stderr=log,
                env=environment,
            )
        deadline = time.monotonic() + SECONDS
        while self("version").returncode:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess:
        return finished(
            ["ctr", "-a", f"{self.folder}/c.sock", "-n", self.namespace, *map(str, words)]
        )

    def pull(self, layout: Path, name: str) -> None:
        """Bring an image in as ``import`` does: no verifier of containerd's looks at it."""
        archive = self.folder / "image.tar"
        archive.unlink(missing_ok=True)
        copied = finished([*SKOPEO, f"oci:{layout}:{name}", f"oci-archive:{archive}:{name}"])
        assert copied.returncode == 0, copied.stderr
        done = self("images", "import", archive)
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """End all containers, then containerd."""
        for task in self("task", "ls", "-q").stdout.split():
            self("task", "rm", "-f", task)
        self._process.terminate()
        self._process.wait(SECONDS)
        unmount_below(self.folder)
        shutil.rmtree(f"/run/containerd/runc/{self.namespace}", ignore_errors=True)


class Podman:
    """podman with storage of its own; its configuration is what ``install`` writes."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.folder = folder
        self._conf = self.folder / "containers.conf"
        self._conf.write_text(LIMITS + podman_drop_in(node.wrapper).decode())

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess:
        options = (
            *("--root", self.folder / "root", "--runroot", self.folder / "run"),
            *("--tmpdir", self.folder / "tmp", "--storage-driver", "overlay"),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--log-level", "error"),
        )
        environment = {**os.environ, "CONTAINERS_CONF": str(self._conf)}
        command = ["podman", *map(str, options), *map(str, words)]
        return finished(command, env=environment)

    def pull(self, layout: Path, name: str) -> None:
        """Copy an image into podman's storage."""
        place = f"overlay@{self.folder}/root+{self.folder}/run"
        done = finished([*SKOPEO, f"oci:{layout}:{name}", f"containers-storage:[{place}]{name}"])
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """Remove all containers."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self("rm", "-fa", "-t", "0")
        unmount_below(self.folder)


class Docker:
    """dockerd with its own containerd, without a bridge; its configuration is what ``install`` writes."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.folder = folder
        (folder / "daemon.json").write_bytes(docker_config(None, node.wrapper))
        command = [
            *("dockerd", "--config-file", folder / "daemon.json", "-H", f"unix://{folder}/d.sock"),
            *("--data-root", folder / "root", "--exec-root", folder / "run"),
            *("--pidfile", folder / "pid", "--storage-driver", "overlay2"),
            *("--bridge=none", "--iptables=false", "--ip6tables=false", "--log-level=error"),
        ]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)
        deadline = time.monotonic() + SECONDS
        while self("version").returncode:
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess:
        options = ("--config", self.folder / "client", "-H", f"unix://{self.folder}/d.sock")
        return finished(["docker", *map(str, options), *map(str, words)])

    def pull(self, layout: Path, name: str) -> None:
        """Load an image as ``docker load`` does."""
        archive = self.folder / "image.tar"
        archive.unlink(missing_ok=True)
        copied = finished([*SKOPEO, f"oci:{layout}:{name}", f"docker-archive:{archive}:{name}"])
        assert copied.returncode == 0, copied.stderr
        done = self("load", "-q", "-i", archive)
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """Remove all containers, then dockerd, which ends its containerd."""
        for one in self("ps", "-aq").stdout.split():
            self("rm", "-f", one)
        self._process.terminate()
        self._process.wait(SECONDS)
        unmount_below(self.folder)


def unmount_below(folder: Path) -> None:
    for place in reversed(mounts_below(folder)):
        subprocess.run(["umount", "-l", place], check=False, capture_output=True, timeout=SECONDS)
