"""Pods: what a kubelet asks of containerd, static pods included, goes through the gate.

``CATENA_WRITE_TRANSCRIPTS=1`` writes the transcript into the manual instead of comparing it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import msgspec
import pytest
from cri import Cri
from engines import missing, moved, unmount_below
from kubelet import PROGRAM, Kubelet
from node import APP, OTHER, UNSIGNED, Node
from standing import needs_runc
from transcripts import compare, plain

from catena.containers.launch.document import default_policy
from catena.formats.containerlog import Create, Deny, Exec, Exit
from swtpm import needs_swtpm

pytestmark = [
    needs_runc,
    needs_swtpm,
    pytest.mark.tpm,
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]
BEYOND = (
    (UNSIGNED, ("/bin/sleep", "60"), "image-unsigned"),
    (APP, ("/bin/sh",), "launch-argv"),
)
LAUNCH = msgspec.structs.replace(
    default_policy(),
    argv=(("/bin/sleep", "re:[0-9]+"), ("/bin/touch", "/ran")),
    exec=(("/bin/echo", "re:[a-z]+"),),
    host_namespaces=("network", "uts"),
)


@pytest.fixture
def place() -> Iterator[Path]:
    """Outside of /dev, whose mounts no policy allows."""
    with tempfile.TemporaryDirectory(prefix="ge-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
        unmount_below(Path(folder))


@pytest.fixture
def node(room, chip, place) -> Iterator[Node]:
    chip.start()
    try:
        made = Node(room, chip, launch=moved(LAUNCH, place), commands={OTHER: ["/bin/sleep", "60"]})
        yield made
        made.clean()
    finally:
        chip.stop()


@pytest.fixture
def cri(node, place) -> Iterator[Cri]:
    with node.gate():
        made = Cri(node, place, f"{OTHER}:1")
        try:
            for name in (APP, OTHER, UNSIGNED):
                made.pull(node.store, f"{name}:1")
            yield made
        finally:
            made.close()


def test_pod(node, cri):
    pod = cri.pod("web")
    container = cri.container(pod, "web", f"{APP}:1", "/bin/sleep", "60")
    cri.start(container)
    assert cri.exec(container, "/bin/echo", "inside") == b"inside\n"
    with pytest.raises(grpc.RpcError) as refused:
        cri.exec(container, "/bin/sh", "-c", "id")
    assert "[exec-not-allowed]" in refused.value.details()
    for attempt, (image, argv, code) in enumerate(BEYOND, 1):
        other = cri.container(pod, "web", f"{image}:1", *argv, attempt=attempt)
        with pytest.raises(grpc.RpcError) as refused:
            cri.start(other)
        assert f"[{code}]" in refused.value.details()
    cri.remove(pod)
    node.await_kind("exit", 2)
    events = [one.event for one in node.events()]
    created = {one.container: one for one in events if isinstance(one, Create)}
    assert [one.repository for one in created.values()] == [OTHER, APP]
    assert created.keys() == {pod, container}
    assert {one.sandbox for one in created.values()} == {pod}
    assert [one.launch.argv for one in events if isinstance(one, Exec)] == [("/bin/echo", "inside")]
    assert {one.code for one in events if isinstance(one, Deny)} == {
        "exec-not-allowed",
        "image-unsigned",
        "launch-argv",
    }


PODS = {
    "app": (APP, ("/bin/sleep", "60"), ("/bin/echo", "ready")),
    "unsigned": (UNSIGNED, ("/bin/sleep", "60"), ()),
    "shell": (APP, ("/bin/sh", "-c", "id"), ()),
    "probed": (APP, ("/bin/sleep", "60"), ("/bin/sh", "-c", "id")),
}
"""Static pods: image, command, readiness probe."""


@pytest.mark.skipif(
    not PROGRAM.exists(), reason="Debian has no kubelet; `make kubelet` builds it from its source"
)
def test_static_pods(node, cri, place):
    kubelet = Kubelet(place / "kubelet", place / "c.sock")
    try:
        for name, (image, argv, probe) in PODS.items():
            kubelet.run(name, f"{image}:1", *argv, probe=probe)
        kubelet.await_that(kubelet.ready, "app")
        told = {name: kubelet.await_that(kubelet.refused, name) for name in ("unsigned", "shell")}
        kubelet.await_that(lambda _: "exec-not-allowed" in node.codes(), "probed")
        assert not kubelet.ready("probed")
        kubelet.stop("app")
        node.await_kind("exit")
    finally:
        kubelet.close()
    events = [one.event for one in node.events()]
    created = [one for one in events if isinstance(one, Create)]
    pauses = {one.container for one in created if one.repository == OTHER}
    assert len(pauses) == len(PODS)
    started = {one.container: one for one in created if one.repository == APP}
    assert len(started) == 2
    assert {one.sandbox for one in started.values()} < pauses
    probed = {one.container for one in events if isinstance(one, Exec)}
    ended = {one.container for one in events if isinstance(one, Exit)} & started.keys()
    assert probed == ended
    assert {one.code for one in events if isinstance(one, Deny)} == {
        *("image-unsigned", "launch-argv", "exec-not-allowed")
    }
    compare("kubelet", "".join(f"{name}: {plain(text)}\n" for name, text in told.items()))
