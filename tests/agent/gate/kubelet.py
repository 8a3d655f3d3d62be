"""A kubelet without a cluster: it starts the pods whose manifests lie in its folder.

Debian has no package of it, but its source, which ``scripts/kubelet`` builds once into the cache.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from standing import SECONDS

PROGRAM = Path(os.environ.get("CATENA_CACHE", ".cache")).absolute() / "kubelet-1.20.2"
TUNABLES = (
    *("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"),
    *("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes"),
)
"""What a kubelet sets of the kernel's, under ``/proc/sys``; this one sets copies."""
APART = """
for one in {}; do
    cat /proc/sys/$one > "$1/tunable" && mkdir -p "$1/$one" && mv "$1/tunable" "$1/$one/value"
    mount --bind "$1/$one/value" /proc/sys/$one || exit 1
done
shift
exec "$@"
""".format(" ".join(TUNABLES))
FIXED = tuple(map(Path, ("/var/log/pods", "/var/log/containers", "/var/lib/kubelet")))
"""Folders that no option moves."""


class Kubelet:
    """The kubelet on containerd's socket. It listens on loopback, where nobody may run anything."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.folder = folder
        self._node = f"gate-{os.getpid()}"
        self._made = [one for one in FIXED if not one.exists()]
        self._read_only = free_port()
        for name in ("manifests", "tunables"):
            (self.folder / name).mkdir(parents=True)
        self._log = self.folder / "log"
        command = [
            *("unshare", "--mount", "sh", "-c", APART, "sh", self.folder / "tunables", PROGRAM),
            *("--root-dir", self.folder, "--cert-dir", self.folder / "pki"),
            *("--pod-manifest-path", self.folder / "manifests", "--file-check-frequency=1s"),
            *("--container-runtime=remote", f"--container-runtime-endpoint=unix://{runtime}"),
            *("--hostname-override", self._node, "--address=127.0.0.1", f"--port={free_port()}"),
            *("--anonymous-auth=false", "--enable-debugging-handlers=false"),
            *(f"--read-only-port={self._read_only}", "--healthz-port=0", "--fail-swap-on=false"),
            *("--cgroups-per-qos=false", "--enforce-node-allocatable=", "--oom-score-adj=0"),
            *("--make-iptables-util-chains=false", "--sync-frequency=1s"),
            *("--volume-plugin-dir", self.folder / "plugins"),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log)

    def run(self, name: str, image: str, *argv: str, probe: tuple[str, ...] = ()) -> None:
        """Lay the manifest of a static pod down, with one container."""
        container: dict = {"name": "main", "image": image, "imagePullPolicy": "Never"}
        container["command"] = list(argv)
        if probe:
            container["readinessProbe"] = {"exec": {"command": list(probe)}, "periodSeconds": 1}
        spec = {"hostNetwork": True, "containers": [container], "terminationGracePeriodSeconds": 1}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self._manifest(name).write_text(json.dumps(manifest))

    def stop(self, name: str) -> None:
        """Take a manifest away; the kubelet ends its pod."""
        self._manifest(name).unlink()

    def container(self, name: str) -> dict:
        """ContainerStatus of a pod's container, or nothing yet."""
        address = f"http://127.0.0.1:{self._read_only}/pods"
        try:
            with urllib.request.urlopen(address, timeout=SECONDS) as answer:
                pods = json.load(answer)["items"] or []
        except OSError:
            return {}
        mine = (one for one in pods if one["metadata"]["name"] == f"{name}-{self._node}")
        return next((one for pod in mine for one in pod["status"].get("containerStatuses", ())), {})

    def ready(self, name: str) -> bool:
        """Whether the pod's container runs and its probe, if any, has succeeded."""
        return self.container(name).get("ready", False)

    def refused(self, name: str) -> str:
        """Why the pod's container was not started, or nothing."""
        told = self.container(name)
        told = (told.get("state", {}).get("waiting"), told.get("lastState", {}).get("terminated"))
        messages = (one.get("message", "") for one in told if one)
        return next((one for one in messages if "catena refused" in one), "")

    def await_that(self, answer: Callable[[str], Any], name: str) -> Any:
        """What ``answer`` says of a pod as soon as it says something."""
        deadline = time.monotonic() + SECONDS
        while not (found := answer(name)):
            said = self._log.read_text()[-3000:]
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, f"{self.container(name)}\n{said}"
            time.sleep(0.05)
        return found

    def close(self) -> None:
        """End the kubelet. Its pods go on."""
        self._process.terminate()
        self._process.wait(SECONDS)
        logs = FIXED[0].glob(f"default_*-{self._node}_*")
        for one in (*logs, *self._made):
            shutil.rmtree(one, ignore_errors=True)

    def _manifest(self, name: str) -> Path:
        return self.folder / "manifests" / f"{name}.json"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
