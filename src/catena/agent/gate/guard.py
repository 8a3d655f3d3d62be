"""One question, from the wrapper's words to the answer.

1. Read the words; only the one real runtime that is configured may be meant.
2. The asking process must see the files that the gate sees: same mount namespace, same root.
3. Decide (``Judge``).
4. Write the checked document where only root can change it.
5. Record: written ahead, on disk, in the TPM. An event that cannot be recorded stops the launch.
6. Answer.

A refusal is recorded, too. If even that fails the refusal stands; it is reported.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from catena.agent.events import Emit
from catena.agent.gate.bundles import Bundles, Held, started
from catena.agent.gate.judge import Judge
from catena.agent.gate.process import process_document
from catena.agent.gate.watch import Watch
from catena.containers.record.failure import RecorderStopped
from catena.containers.record.refused import NoSuchContainer
from catena.containers.wrapper import protocol
from catena.containers.wrapper.command import RuntimeCommand, Verb, parse_command
from catena.containers.wrapper.protocol import Request, parse_request
from catena.errors import CatenaError, Refusal, Unavailable
from catena.formats.containerlog import ContainerEvent, Deny, Exit

_MAX_WORD = 500


class ForeignRuntime(Refusal):
    """The wrapper would run another program than the one that is configured."""

    code = "foreign-runtime"
    remedy = "Install the wrapper for the `runtime` in gate.toml: `catena container install`."


class ForeignView(Refusal):
    """The caller sees other files under the same names than the gate does."""

    code = "foreign-mount-namespace"
    remedy = (
        "Run gate and runtime in one mount namespace: no PrivateMounts=, no chroot, no unshare."
    )


class TooLate(Unavailable):
    """The answer took longer than anybody waits for it."""

    code = "gate-too-late"
    remedy = (
        "Start it again; a first start reads all of the image. `request_seconds` sets the limit."
    )


class Defective(CatenaError):
    """The gate failed in a way that nobody foresaw; nothing starts."""

    code = "gate-defect"
    remedy = "A defect of catena. Please report it, with the gate's own messages."


class Record(Protocol):
    """Where events go: ``append`` returns when the event is on disk and in the TPM."""

    def append(self, event: ContainerEvent) -> object:
        """Record one event. Raises ``CatenaError``."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that asks. ``pidfd`` is its handle, owned by whoever made it."""

    pid: int
    pidfd: int


@dataclass(slots=True)
class Guard:
    """Answers questions; for several threads at once."""

    runtime: Path
    runtime_root: Path
    seconds: float
    judge: Judge
    record: Record
    emit: Emit
    now: Callable[[], datetime]
    folder: Path
    lost: Callable[[CatenaError], None] = lambda _: None
    """Told when nothing can be recorded any more."""
    bundles: Bundles = field(init=False)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.bundles = Bundles(self.folder, self._exited)
        self.watch = Watch(self.bundles.sweep)

    def start(self) -> None:
        """Take over what an earlier gate left, and begin to watch. Raises ``BundleUnwritable``."""
        self.bundles.prepare()
        self.watch.start()
        for container, pid in self.bundles.in_creation.items():
            with contextlib.suppress(ProcessLookupError):
                self._await(os.pidfd_open(pid), container)
        self.bundles.sweep()  # who ended in between

    def close(self) -> None:
        """End; what lives is left to the next gate."""
        self.watch.stop()

    def answer(self, data: bytes, peer: Peer) -> bytes:
        """The answer to one request, whatever it is."""
        begun = time.monotonic()
        command: RuntimeCommand | None = None
        try:
            request = parse_request(data)
            command = parse_command(request.words)
            return self._allow(request, command, peer, begun + self.seconds)
        except CatenaError as error:
            self._denied(command, error)
            return protocol.deny(error)
        except Exception as error:  # noqa: BLE001 - a defect must refuse, never let pass
            defect = Defective(f"{type(error).__name__}: {ascii(str(error))[:200]}")
            self._denied(command, defect)
            return protocol.deny(defect)

    # Allowed --------------------------------------------------------------------------------

    def _allow(
        self, request: Request, command: RuntimeCommand, peer: Peer, deadline: float
    ) -> bytes:
        if request.runtime != self.runtime:
            raise ForeignRuntime(
                "the wrapper runs another runtime",
                expected=str(self.runtime),
                got=ascii(str(request.runtime)[:80]),
            )
        check_view(peer.pid)
        match command.verb:
            case Verb.DELETE:
                self._await(os.dup(peer.pidfd), command.container)
                words = request.words
            case Verb.EXEC:
                words = self._exec(request, command, peer, deadline)
            case _:
                words = self._create(request, command, peer, deadline)
        return protocol.allow(self.runtime, words)

    def _create(
        self, request: Request, command: RuntimeCommand, peer: Peer, deadline: float
    ) -> tuple[str, ...]:
        bundle = request.folder / command.value("bundle")
        restore = command.verb is Verb.RESTORE
        allowed = self.judge.create(bundle, command.container, restore=restore)
        held = Held(
            root=self._root(request, command),
            pid=peer.pid,
            started=started(peer.pid),
            event=allowed.event,
        )
        place = self.bundles.claim(held, allowed.document)
        try:
            self._write_ahead(allowed.event, deadline)
        except BaseException:
            self.bundles.drop(command.container)
            raise
        self._await(os.dup(peer.pidfd), command.container)
        return command.words(bundle=str(place), console_socket=_beside(bundle, command))

    def _exec(
        self, request: Request, command: RuntimeCommand, peer: Peer, deadline: float
    ) -> tuple[str, ...]:
        created = self.bundles.find(command.container, self._root(request, command))
        document = process_document(request.folder, command, self.bundles.config(command.container))
        allowed = self.judge.exec(document, created)
        place = self.bundles.process(allowed.document)
        try:
            self._write_ahead(allowed.event, deadline)
        except BaseException:
            place.unlink()
            raise
        self.watch.add(os.dup(peer.pidfd), lambda: place.unlink(missing_ok=True))
        return command.words(process=str(place), **dict.fromkeys(IN_DOCUMENT))

    def _write_ahead(self, event: ContainerEvent, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise TooLate("the decision took too long", expected=f"{self.seconds:g} s")
        self.record.append(event)

    def _root(self, request: Request, command: RuntimeCommand) -> str:
        given = command.value_of_global("root")
        return os.fspath(request.folder / given if given else self.runtime_root)

    def _await(self, pidfd: int, container: str) -> None:
        self.watch.add(pidfd, lambda: self.bundles.settle(container))

    # Told -----------------------------------------------------------------------------------

    def _denied(self, command: RuntimeCommand | None, error: CatenaError) -> None:
        container = "" if command is None else command.container[:_MAX_WORD]
        verb = "" if command is None else command.verb.value
        self.emit("denied", container=container, verb=verb, code=error.code, message=str(error))
        event = Deny(
            at=self.now(),
            container=container,
            verb=verb,
            code=error.code,
            message=str(error)[:_MAX_WORD],
            policy=self.judge.policy(),
        )
        try:
            self.record.append(event)
        except CatenaError as fault:
            self._unrecorded("deny", fault)

    def _exited(self, container: str) -> None:
        """Record an exit. One that is in the record already was written by a gate that then died."""
        try:
            with contextlib.suppress(NoSuchContainer):
                self.record.append(Exit(at=self.now(), container=container))
        except CatenaError as fault:
            self._unrecorded("exit", fault)
            raise

    def _unrecorded(self, what: str, fault: CatenaError) -> None:
        self.emit("unrecorded", of=what, code=fault.code, message=str(fault))
        if isinstance(fault, RecorderStopped):
            self.lost(fault)


IN_DOCUMENT = (
    "cwd",
    "env",
    "tty",
    "user",
    "additional_gids",
    "process_label",
    "apparmor",
    "no_new_privs",
    "cap",
)
"""Options of ``exec`` that are part of the process document by the time the runtime reads it."""


def check_view(pid: int) -> None:
    """Refuse a process for which the same path may be another file. Raises ``ForeignView``."""
    proc = Path(f"/proc/{pid}")
    try:
        same = os.path.samestat(
            (proc / "ns/mnt").stat(), Path("/proc/self/ns/mnt").stat()
        ) and os.path.samestat((proc / "root").stat(), Path("/").stat())
    except OSError as error:
        raise ForeignView("cannot see what the caller sees", got=error.strerror) from error
    if not same:
        raise ForeignView("the caller has another mount namespace or root than the gate")


def _beside(bundle: Path, command: RuntimeCommand) -> str | None:
    """The console socket: relative, it would be looked for in the private bundle."""
    given = command.value("console-socket")
    return os.fspath(bundle / given) if given else None
