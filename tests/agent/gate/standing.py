"""A gate that stands: socket, guard and wrapper for real, with a judge that has one answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catena.agent.gate.guard import Guard
from catena.agent.gate.judge import Allowed
from catena.agent.gate.process import read_document
from catena.agent.gate.server import Server, sole
from catena.containers.wrapper import files
from catena.errors import CatenaError, Refusal, Unavailable
from catena.formats.containerlog import ContainerEvent, Create, Exec, Launch
from catena.formats.runtime import private_copy
from catena.formats.structs import make_ready

RUNC = Path("/usr/sbin/runc")
BUSYBOX = Path("/bin/busybox")
SECONDS = 60

needs_runc = pytest.mark.skipif(
    not (RUNC.exists() and BUSYBOX.exists()), reason="needs runc and busybox-static"
)


class NotToday(Refusal):
    code = "not-today"


class RecordFull(Unavailable):
    code = "record-full"


@dataclass
class OneAnswer:
    """Allows all, or refuses all with ``refusal``."""

    refusal: CatenaError | None = None
    asked: list[tuple] = field(default_factory=list)
    pause: float = 0.0

    def create(self, bundle, container, *, restore):
        self.asked.append(("restore" if restore else "create", container))
        self._answer()
        document = private_copy(read_document(bundle / "config.json"), bundle)
        return Allowed(created(container), document)

    def exec(self, process, created):
        self.asked.append(("exec", json.loads(process)))
        self._answer()
        event = Exec(
            at=datetime.now(UTC),
            container=created.container,
            image=created.image,
            policy="0" * 64,
            launch=created.launch,
        )
        return Allowed(event, process)

    def policy(self):
        return ""

    def _answer(self):
        time.sleep(self.pause)
        if self.refusal is not None:
            raise self.refusal


def created(container: str) -> Create:
    launch = Launch(argv=("sh",), argv_total=1, config="1" * 64)
    return Create(
        at=datetime.now(UTC),
        container=container,
        image="sha256:" + "2" * 64,
        repository="r/x",
        publisher="p",
        signature="cosign",
        root="3" * 64,
        policy="0" * 64,
        launch=launch,
    )


@dataclass
class InMemory:
    """A record that is only remembered; ``fault`` makes it one that cannot be written."""

    events: list[ContainerEvent] = field(default_factory=list)
    fault: CatenaError | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def append(self, event):
        if self.fault is not None:
            raise self.fault
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def kinds(self) -> list[str]:
        return [event.__struct_config__.tag for event in self.events]

    def await_kind(self, kind: str, count: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.kinds().count(kind) >= count, 20), kind


@dataclass
class Standing:
    """One gate and its wrapper, below ``folder``."""

    folder: Path
    judge: OneAnswer = field(default_factory=OneAnswer)
    record: InMemory = field(default_factory=InMemory)
    told: list[tuple[str, dict]] = field(default_factory=list)
    runtime: Path = RUNC
    uids: frozenset[int] = frozenset({0})
    workers: int = 8
    queue: int = 64
    seconds: float = 30

    def __post_init__(self) -> None:
        self.socket = self.folder / "run" / "gate.sock"
        self.root = self.folder / "state"
        self.log = self.folder / "runc.log"
        self.wrapper = files.write(self.folder / "lib", runtime=self.runtime, gate=self.socket)

    @contextmanager
    def up(self) -> Iterator[Standing]:
        """The gate, running."""
        guard = Guard(
            runtime=self.runtime,
            runtime_root=Path("/run/runc"),
            seconds=self.seconds,
            judge=self.judge,
            record=self.record,
            emit=lambda event, **fields: self.told.append((event, fields)),
            now=lambda: datetime.now(UTC),
            folder=self.folder / "run",
        )
        server = Server(self.socket, self.uids, self.workers, self.queue, guard.answer, guard.emit)
        make_ready()
        with sole(self.socket), closing(guard):
            guard.start()
            server.listen()
            try:
                yield self
            finally:
                server.stop()

    def call(
        self, *words: str | Path, cwd: Path | None = None, **more
    ) -> subprocess.CompletedProcess:
        """The wrapper with its own state folder and log."""
        options = ("--root", self.root, "--log", self.log, "--log-format", "json")
        return self.plain(*options, *words, cwd=cwd, **more)

    def plain(
        self, *words: str | Path, cwd: Path | None = None, **more
    ) -> subprocess.CompletedProcess:
        """The wrapper with nothing but ``words``."""
        return finished([str(self.wrapper), *map(str, words)], cwd=cwd, **more)

    def logged(self) -> list[dict]:
        """What the runtime's own log says."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def clean(self) -> None:
        """Remove the containers that a test left."""
        for state in self.root.glob("*"):
            subprocess.run(
                [str(RUNC), "--root", str(self.root), "delete", "--force", state.name],
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )


def finished(command: list[str], **more) -> subprocess.CompletedProcess:
    """Run a command; a container that lives on may keep its output open, so that is a file."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        done = subprocess.run(command, stdout=out, stderr=err, timeout=SECONDS, check=False, **more)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, out.read(), err.read())


def bundle_at(folder: Path, *argv: str, **changes) -> Path:
    """A bundle with busybox; ``changes`` are members of ``process``."""
    binaries = folder / "rootfs" / "bin"
    binaries.mkdir(parents=True)
    shutil.copy(BUSYBOX, binaries)
    for name in ("sh", "true", "echo", "sleep", "cat", "touch", "env", "id"):
        (binaries / name).symlink_to("busybox")
    (folder / "config.json").write_text(json.dumps(config_for(*argv, **changes)))
    return folder


def config_for(*argv: str, **changes) -> dict:
    """What ``runc spec`` says, with these arguments."""
    config = json.loads(_spec())
    config["process"] |= {"terminal": False, "args": list(argv or ("/bin/true",)), **changes}
    config["root"]["readonly"] = False
    return config


_SPECIFIED: list[str] = []


def _spec() -> str:
    if not _SPECIFIED:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([str(RUNC), "spec"], cwd=folder, check=True, timeout=SECONDS)
            _SPECIFIED.append((Path(folder) / "config.json").read_text())
    return _SPECIFIED[0]
