"""Real storage of containers, private to a test: podman's drivers, containerd's snapshotters, folders.

Each has ``pull(image)``, ``container()``: the root of a new container as a runtime is given it, and
``run(shim, …)``: a real start through a runtime of the test's. Nothing of it outlives ``close``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

from catena.osimage.tool import die_with
from living import mounts_below

SECONDS = 60
CONTAINERS_CONF = """[containers]
default_ulimits=["nofile=1024:20000","nproc=4096:4096"]
"""
CONTAINERD_CONF = """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{0}/c.sock"
[ttrpc]
  address = "{0}/t.sock"
"""
NEEDED = ("podman", "skopeo", "runc", "containerd", "ctr", "conmon")


def missing() -> str:
    """Why real storage cannot be used here, or nothing."""
    if os.geteuid() != 0:
        return "mounting needs root"
    absent = [one for one in NEEDED if shutil.which(one) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return (
        "" if "overlay" in Path("/proc/filesystems").read_text() else "the kernel has no overlayfs"
    )


def command(*words: object, **environment: str) -> str:
    """What a program prints; its last words if it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    return done.stdout.strip()


def unmount_below(folder: Path) -> None:
    for place in reversed(mounts_below(folder)):
        subprocess.run(["umount", "-l", place], check=False, capture_output=True)


class Podman:
    """containers/storage with one of its drivers."""

    def __init__(self, folder: Path, driver: str) -> None:
        self.folder, self.driver = folder, driver
        folder.mkdir()
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        self._options = (
            *("--root", folder / "root", "--runroot", folder / "run", "--tmpdir", folder / "tmp"),
            *("--storage-driver", driver, "--cgroup-manager", "cgroupfs", "--log-level", "error"),
        )
        self._image = ""

    def __call__(self, *words: object, runtime: object = "runc") -> str:
        conf = str(self.folder / "containers.conf")
        return command("podman", *self._options, "--runtime", runtime, *words, CONTAINERS_CONF=conf)

    def pull(self, layout: Path, name: str) -> None:
        place = f"{self.driver}@{self.folder}/root+{self.folder}/run"
        target = f"containers-storage:[{place}]{name}"
        command("skopeo", "copy", "-q", "--insecure-policy", f"oci:{layout}:{name}", target)
        self._image = name

    def container(self) -> Path:
        return Path(self("mount", self("create", "--network", "none", self._image, "/bin/sh")))

    def run(self, shim: Path, *words: str, options: tuple[str, ...] = ()) -> str:
        return self(
            *("run", "--name", "one", "--network", "none", *options, self._image, *words),
            runtime=shim,
        )

    def start(self, shim: Path) -> str:
        return self("start", "-a", "one", runtime=shim)

    def commit(self, script: str, name: str, layout: Path) -> str:
        """What a shell script changes, as an image of podman's own making in a new layout; its digest."""
        self("run", "--name", "build", "--network", "none", self._image, "/bin/busybox", "sh", "-ec", script)  # fmt: skip
        self("commit", "-q", "build", name)
        place = f"{self.driver}@{self.folder}/root+{self.folder}/run"
        source = f"containers-storage:[{place}]{name}"
        command("skopeo", "copy", "-q", "--insecure-policy", source, f"oci:{layout}:{name}")
        self._image = name
        return str(json.loads((layout / "index.json").read_bytes())["manifests"][0]["digest"])

    def close(self) -> None:
        for words in (("rm", "-fa", "-t", "0"), ("umount", "-fa")):
            with contextlib.suppress(AssertionError):
                self(*words)
        unmount_below(self.folder)


class Containerd:
    """A containerd of the test's own with one of its snapshotters."""

    def __init__(self, folder: Path, snapshotter: str) -> None:
        self.folder, self.snapshotter = folder, snapshotter
        folder.mkdir()
        (folder / "config.toml").write_text(CONTAINERD_CONF.format(folder))
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["containerd", "-c", folder / "config.toml"],
                stdout=log,
                stderr=log,
                preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - only calls prctl
            )
        self._image, self._top, self._count = "", "", 0
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def _await(self) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                self("version")
            except AssertionError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.05)
            else:
                return

    def __call__(self, *words: object) -> str:
        return command("ctr", "-a", self.folder / "c.sock", *words)

    def pull(self, layout: Path, name: str) -> None:
        place = self.folder / "image.tar"
        command("skopeo", "copy", "-q", "--insecure-policy", f"oci:{layout}:{name}", f"oci-archive:{place}:{name}")  # fmt: skip
        self("images", "import", "--snapshotter", self.snapshotter, place)
        self._image, self._top = name, self._committed()

    def container(self) -> Path:
        self._count += 1
        key, target = f"one-{self._count}", self.folder / f"mount-{self._count}"
        target.mkdir()
        self(*self._snapshots, "prepare", key, self._top)
        command("sh", "-c", self(*self._snapshots, "mounts", target, key))
        return target

    @property
    def _snapshots(self) -> tuple[str, ...]:
        return ("snapshots", "--snapshotter", self.snapshotter)

    def _committed(self) -> str:
        """The committed snapshot that no other one stands on."""
        rows = [line.split() for line in self(*self._snapshots, "ls").splitlines()[1:]]
        parents = {row[1] for row in rows if len(row) == 3}
        return next(row[0] for row in rows if row[-1] == "Committed" and row[0] not in parents)

    def run(self, shim: Path, *words: str, options: tuple[str, ...] = ()) -> str:
        # Through a file: ctr may lose what a program says that ends at once.
        said = self.folder / "said"
        said.unlink(missing_ok=True)
        self(
            *("run", "--rm", "--snapshotter", self.snapshotter, "--runc-binary", shim),
            *("--runc-root", self.folder / "runc", "--log-uri", f"file://{said}"),
            *(*options, self._image, "one", *words),
        )
        return said.read_text().strip()

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        unmount_below(self.folder)


def unpacked(archive: Path, folder: Path) -> Path:
    """A tar unpacked as it is, without a runtime."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, numeric_owner=True)
    return folder
