"""The same gate under real engines; what is shown here is what the manual prints.

``CATENA_WRITE_TRANSCRIPTS=1`` writes the transcripts into the manual instead of comparing them.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from engines import Ctr, Docker, Podman, missing, moved, unmount_below
from node import APP, UNSIGNED, Node
from standing import needs_runc
from transcripts import compare, plain

from catena.containers.launch.document import default_policy
from catena.formats.containerlog import Create, Deny, Exec
from swtpm import needs_swtpm

LAUNCH = msgspec.structs.replace(
    default_policy(),
    name="app",
    argv=(("/bin/echo", "re:[a-z]+"), ("/bin/sleep", "re:[0-9]+")),
    exec=(("/bin/echo", "re:[a-z]+"),),
    hooks=(
        "re:/proc/[0-9]+/exe libnetwork-setkey -exec-root=/[a-z0-9/_-]+ [0-9a-f]{64} [0-9a-f]{12}",
    ),
)

ENV = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]

pytestmark = [
    needs_runc,
    needs_swtpm,
    pytest.mark.tpm,
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]


@pytest.fixture
def node(room, chip, place) -> Iterator[Node]:
    chip.start()
    try:
        made = Node(room, chip, launch=moved(LAUNCH, place))
        yield made
        made.clean()
    finally:
        chip.stop()


@pytest.fixture
def place() -> Iterator[Path]:
    """Outside of /dev, whose mounts no policy allows."""
    with tempfile.TemporaryDirectory(prefix="ge-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
        unmount_below(Path(folder))


class Told:
    """What was typed and what came, as the manual prints it."""

    def __init__(self, name: str, call: Callable) -> None:
        self._name, self._call = name, call
        self.text = ""

    def __call__(self, *words: str, shown: tuple[str, ...] = ()):
        done = self._call(*words)
        said = (done.stdout + done.stderr).strip()
        self.text += f"$ {self._name} {shlex.join(shown or words)}\n"
        self.text += "".join(f"{plain(line)}\n" for line in said.splitlines())
        return done


def check_record(node: Node) -> None:
    """One image ran twice and was entered once; four attempts were refused; all of it is in the TPM."""
    events = [one.event for one in node.events()]
    assert [one.repository for one in events if isinstance(one, Create)] == [APP, APP]
    assert [one.launch.argv for one in events if isinstance(one, Exec)] == [("/bin/echo", "inside")]
    refusals = [one.code for one in events if isinstance(one, Deny)]
    assert refusals == ["image-unsigned", "launch-argv", "exec-not-allowed"]
    node.check_replay()


def test_runc(node):
    bundle = node.bundle(APP, "/bin/echo", "hello", capabilities={}, env=ENV)
    unsigned = node.bundle(
        UNSIGNED, "/bin/echo", "hello", name="unsigned", capabilities={}, env=ENV
    )
    told = Told("runc", node.call)
    with node.gate():
        told("run", "--bundle", bundle, "a1", shown=("run", "--bundle", "app", "a1"))
        told("run", "--bundle", unsigned, "a2", shown=("run", "--bundle", "unsigned", "a2"))
        node.configure(bundle, "/bin/sh", "-c", "id", capabilities={}, env=ENV)
        told("run", "--bundle", bundle, "a3", shown=("run", "--bundle", "app-shell", "a3"))
        node.configure(bundle, "/bin/sleep", "60", capabilities={}, env=ENV)
        told("run", "-d", "--bundle", bundle, "a4", shown=("run", "-d", "--bundle", "app", "a4"))
        told("exec", "a4", "/bin/echo", "inside")
        told("exec", "a4", "/bin/sh", "-c", "id")
        told("delete", "--force", "a4")
        node.await_kind("exit", 2)
    done = node.call("run", "--bundle", bundle, "a5")
    assert done.returncode == 1
    told.text += f"$ systemctl stop catena-gate\n$ runc run --bundle app a5\n{done.stderr}"
    check_record(node)
    compare("runc", told.text)


QUIETLY = ("run", "--rm", "--network=none")
IN_PODMAN_AND_DOCKER = (
    (*QUIETLY, f"{APP}:1", "/bin/echo", "hello"),
    (*QUIETLY, f"{UNSIGNED}:1", "/bin/echo", "hello"),
    (*QUIETLY, f"{APP}:1", "/bin/sh", "-c", "id"),
    ("run", "-d", "--network=none", "--name=a4", f"{APP}:1", "/bin/sleep", "60"),
    ("exec", "a4", "/bin/echo", "inside"),
    ("exec", "a4", "/bin/sh", "-c", "id"),
)
IN_CTR = (
    ("run", "--rm", f"{APP}:1", "a1", "/bin/echo", "hello"),
    ("run", "--rm", f"{UNSIGNED}:1", "a2", "/bin/echo", "hello"),
    ("run", "--rm", f"{APP}:1", "a3", "/bin/sh", "-c", "id"),
    ("run", "-d", f"{APP}:1", "a4", "/bin/sleep", "60"),
    ("task", "exec", "--exec-id", "e1", "a4", "/bin/echo", "inside"),
    ("task", "exec", "--exec-id", "e2", "a4", "/bin/sh", "-c", "id"),
)
needs_docker = pytest.mark.skipif(
    shutil.which("dockerd") is None, reason="docker.io cannot be had from Debian"
)


@pytest.mark.parametrize(
    ("kind", "typed", "end"),
    [
        pytest.param(Ctr, IN_CTR, ("task", "rm", "--force", "a4"), id="ctr"),
        pytest.param(Podman, IN_PODMAN_AND_DOCKER, ("rm", "-f", "-t", "0", "a4"), id="podman"),
        pytest.param(
            Docker, IN_PODMAN_AND_DOCKER, ("rm", "-f", "a4"), id="docker", marks=needs_docker
        ),
    ],
)
def test_engine(*, request, node, place, kind, typed, end):
    name = request.node.callspec.id
    with node.gate():
        engine = kind(node, place)
        try:
            for image in (APP, UNSIGNED):
                engine.pull(node.store, f"{image}:1")
            told = Told(name, engine)
            for words in typed:
                told(*words)
            engine(*end)
            node.await_kind("exit", 2)
        finally:
            engine.close()
    check_record(node)
    compare(name, told.text)
