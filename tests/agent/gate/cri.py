"""containerd's CRI, called as a kubelet calls it: gRPC, with the few messages that are needed.

No kubelet and no ``crictl`` can be had from Debian's archives; both make these calls. A static pod is
no other thing here: a kubelet makes it with them, too. Messages are from ``k8s.io/cri-api``,
``runtime/v1/api.proto``; each is a dict of field numbers. Pods use the machine's network, so that no
network plugin is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import grpc
from engines import SKOPEO, unmount_below
from node import Node
from standing import SECONDS, finished

from catena.containers.engines import containerd_config

NAMESPACES = {1: 2, 2: 1}
"""NamespaceOption: the machine's network, and processes of the container's own, as kubelets ask."""
MASKED = (
    *("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
)
READ_ONLY = (
    *("/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
)
"""What a kubelet asks for, unless the pod says `procMount: Unmasked`."""
CONFIG = """version = 2
root = "{0}/root"
state = "{0}/state"
[grpc]
  address = "{0}/c.sock"
[ttrpc]
  address = "{0}/t.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{1}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{0}/cni/bin"
    conf_dir = "{0}/cni/conf"
"""


class Cri:
    """containerd with its CRI plugin, configured as ``catena container install`` does it."""

    def __init__(self, node: Node, folder: Path, pause: str) -> None:
        self.folder = folder
        config = containerd_config(CONFIG.format(folder, pause).encode(), node.wrapper)
        (folder / "config.toml").write_bytes(config)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["containerd", "-c", folder / "config.toml"], stdout=log, stderr=log, env=os.environ
            )
        self._channel = grpc.insecure_channel(f"unix:{folder}/c.sock")
        grpc.channel_ready_future(self._channel).result(SECONDS)
        deadline = time.monotonic() + SECONDS
        while b"containerd successfully booted" not in self._log.read_bytes():
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.05)

    def pull(self, layout: Path, name: str) -> None:
        """Bring an image in without a registry."""
        archive = self.folder / "image.tar"
        archive.unlink(missing_ok=True)
        for command in (
            [*SKOPEO, f"oci:{layout}:{name}", f"oci-archive:{archive}:{name}"],
            ["ctr", "-a", f"{self.folder}/c.sock", "-n", "k8s.io", "images", "import", archive],
        ):
            done = finished(list(map(str, command)))
            assert done.returncode == 0, done.stderr

    def call(self, method: str, request: dict) -> dict[int, list[bytes | int]]:
        """The answer's fields by number. Raises ``grpc.RpcError``."""
        function = self._channel.unary_unary(f"/runtime.v1.RuntimeService/{method}")
        return decoded(function(encoded(request), timeout=SECONDS))

    def pod(self, name: str) -> str:
        """RunPodSandbox; the pod's ID."""
        return self.call("RunPodSandbox", {1: sandbox(name)})[1][0].decode()

    def container(self, pod: str, name: str, image: str, *argv: str, attempt: int = 0) -> str:
        """CreateContainer in a pod; the container's ID."""
        config = {
            1: {1: "main", 2: attempt},
            2: {1: image},
            3: list(argv),
            15: {2: {3: NAMESPACES, 13: list(MASKED), 14: list(READ_ONLY)}},
        }
        return self.call("CreateContainer", {1: pod, 2: config, 3: sandbox(name)})[1][0].decode()

    def start(self, container: str) -> None:
        """StartContainer."""
        self.call("StartContainer", {1: container})

    def exec(self, container: str, *argv: str) -> bytes:
        """ExecSync, as a probe of a kubelet; what the command printed."""
        return self.call("ExecSync", {1: container, 2: list(argv), 3: 10})[1][0]

    def remove(self, pod: str) -> None:
        """Stop and remove a pod and its containers."""
        self.call("StopPodSandbox", {1: pod})
        self.call("RemovePodSandbox", {1: pod})

    def close(self) -> None:
        """End every pod, then containerd."""
        for one in self.call("ListPodSandbox", {}).get(1, ()):
            self.remove(decoded(one)[1][0].decode())
        self._channel.close()
        self._process.terminate()
        self._process.wait(SECONDS)
        unmount_below(self.folder)
        shutil.rmtree("/run/containerd/runc/k8s.io", ignore_errors=True)


def sandbox(name: str) -> dict:
    """PodSandboxConfig."""
    return {1: {1: name, 2: f"uid-{name}", 3: "default"}, 8: {2: {1: NAMESPACES}}}


def encoded(message: dict) -> bytes:
    """Protocol buffers: varints, strings, messages, and lists of them."""
    out = b""
    for number, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                out += varint(number << 3) + varint(one)
                continue
            content = encoded(one) if isinstance(one, dict) else one.encode()
            out += varint(number << 3 | 2) + varint(len(content)) + content
    return out


def decoded(data: bytes) -> dict[int, list[bytes | int]]:
    fields: dict[int, list[bytes | int]] = {}
    while data:
        key, data = unvarint(data)
        value, data = unvarint(data)
        if key & 7 == 2:
            value, data = data[:value], data[value:]
        fields.setdefault(key >> 3, []).append(value)
    return fields


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def unvarint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for at, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:
            return value, data[at + 1 :]
    raise ValueError("cut")
