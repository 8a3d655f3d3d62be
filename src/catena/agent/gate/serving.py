"""The gate as a process: what it is made of, in which order it starts, and how it ends.

1. It is the only gate (the socket's lock), on a tmpfs of its own.
2. The record is recovered and a ``gate-start`` appended; then the policy, if it can be read. A
   gate without a policy serves, and refuses everything.
3. What an earlier gate left is taken over; containers that ended meanwhile get their exit.
4. The images in the stores are read. Only then the socket opens.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

from catena import __version__
from catena.agent.delivery import is_memory_backed
from catena.agent.events import Emit, json_lines, notify
from catena.agent.gate import config as configuration
from catena.agent.gate.bundles import BundleUnwritable
from catena.agent.gate.config import GateConfig
from catena.agent.gate.decision import Decision
from catena.agent.gate.guard import Guard
from catena.agent.gate.images import Images
from catena.agent.gate.policy import PolicyFile
from catena.agent.gate.register import open_register
from catena.agent.gate.server import Server, sole
from catena.agent.gate.stores import Stores
from catena.containers.record.commitment import boot_key
from catena.containers.record.recorder import Recorder
from catena.containers.rootfs.catalog import Catalog
from catena.containers.signature.policy import CompiledPolicy
from catena.errors import CatenaError
from catena.formats.containerlog import PolicyInForce
from catena.formats.structs import make_ready
from catena.keys.signer import load_public_key

_TREES = "trees"

SWITCH_SECONDS = 0.0005
"""A tenth of Python's own: each sync and each extend gives the interpreter up, and a thread that
decides meanwhile would keep it from the one that records for five milliseconds at a time."""


@dataclass(slots=True)
class Gate:
    """A gate that serves."""

    guard: Guard
    policy: PolicyFile
    images: Images
    recorder: Recorder
    emit: Emit

    def refresh(self) -> None:
        """Look at policy and stores now and not at the next start; failures are reported."""
        for event, look in (("no-policy", self.policy.current), ("no-images", self.images.learn)):
            try:
                look()
            except CatenaError as error:
                self.emit(event, code=error.code, message=str(error))


def serve(config_path: Path) -> None:
    """Guard until SIGTERM or SIGINT; SIGHUP makes the gate look at policy and stores at once.

    Raises what ``standing`` raises, and ``RecorderStopped`` when nothing can be recorded any more:
    a service manager then starts a gate that recovers the record, or cannot serve.
    """
    told: SimpleQueue[int | CatenaError] = SimpleQueue()
    sys.setswitchinterval(SWITCH_SECONDS)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: told.put(number))
    emit = json_lines(sys.stdout, _now)
    with standing(configuration.load(config_path), emit, _now) as gate:
        gate.guard.lost = told.put
        emit("started", policy=gate.policy.digest(), images=len(gate.images.catalog.chains()))
        notify("READY=1")
        while (what := told.get()) == signal.SIGHUP:
            gate.refresh()
        notify("STOPPING=1")
    emit("stopped")
    if isinstance(what, CatenaError):
        raise what


@contextmanager
def standing(config: GateConfig, emit: Emit, now: Callable[[], datetime]) -> Iterator[Gate]:
    """A gate that serves as long as the ``with`` lasts.

    Raises ``GateRunning``, ``SocketUnusable``, ``BundleUnwritable``, ``RecordRefused``, what
    ``open_register``, the record file and the TPM raise.
    """
    with sole(config.socket), open_register(config) as extender:  # (1)
        make_ready()
        _prepare(config.runtime_dir)
        recorder = Recorder(config.record, extender, now, pcr=config.pcr, nv_index=config.nv_index)
        recorder.recover()  # (2)
        with closing(recorder):
            recorder.append(recorder.gate_start(__version__))
            gate = _assembled(config, recorder, emit, now)
            gate.guard.start()  # (3)
            with closing(gate.guard):
                gate.refresh()  # (4)
                with _served(config, gate):
                    yield gate


@contextmanager
def _served(config: GateConfig, gate: Gate) -> Iterator[None]:
    server = Server(
        path=config.socket,
        uids=frozenset(config.uids),
        workers=config.workers,
        queue_size=config.queue,
        answer=gate.guard.answer,
        emit=gate.emit,
    )
    server.listen()
    try:
        yield
    finally:
        server.stop()


def _assembled(
    config: GateConfig, recorder: Recorder, emit: Emit, now: Callable[[], datetime]
) -> Gate:
    stores = Stores(config.images)
    images = Images(
        stores=stores,
        catalog=Catalog(stores.blobs, config.runtime_dir / _TREES),
        emit=emit,
        now=now,
        strict=config.strict,
    )

    def changed(policy: CompiledPolicy) -> None:
        document = policy.document
        recorder.append(
            PolicyInForce(
                at=now(), policy=policy.digest, name=document.name, version=document.version
            )
        )
        emit("policy", policy=policy.digest, name=document.name, version=document.version)

    keys = tuple(map(load_public_key, config.policy_keys))
    policy = PolicyFile(config.policy, keys, changed)
    guard = Guard(
        runtime=config.runtime,
        runtime_root=config.runtime_root,
        seconds=config.request_seconds,
        judge=Decision(images, policy, boot_key(config.runtime_dir), now),
        record=recorder,
        emit=emit,
        now=now,
        folder=config.runtime_dir,
    )
    return Gate(guard, policy, images, recorder, emit)


def _prepare(folder: Path) -> None:
    """The gate's own folder: on a tmpfs, for no one else. Raises ``BundleUnwritable``."""
    try:
        for place in (folder, folder / _TREES):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.chmod(0o700)
    except OSError as error:
        raise BundleUnwritable(f"cannot use {folder}", got=error.strerror) from error
    if not is_memory_backed(folder):
        raise BundleUnwritable(f"{folder} is not on a tmpfs")


def _now() -> datetime:
    return datetime.now(UTC)
