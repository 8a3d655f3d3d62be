"""A node with everything: image store, signatures, policy, TPM, gate, wrapper; below one folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from standing import BUSYBOX, RUNC, config_for, finished

from catena.containers.images.layout import Layout
from catena.containers.record.replay import RecordedEvent, read_record, replay
from catena.containers.signature.result import SignatureFormat
from catena.containers.signature.sign import attach_launch_policy, sign_image, target_of
from catena.containers.wrapper import files
from catena.formats.containerpolicy import ContainerPolicy, Publisher, Scope
from catena.formats.launchpolicy import LaunchPolicy
from catena.ids import HashAlg
from catena.keys.documents import seal_document
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key, public_pem
from catena.tpm.device import open_tpm
from containers.imagebuilder import Store
from small_tars import file, folder, link, tar
from swtpm import SoftwareTpm

APP = "registry.example/team/app"
OTHER = "registry.example/team/other"
UNSIGNED = "registry.example/team/unsigned"
PATH = "PATH=/bin"
TOUCH = ["/bin/touch", "/ran"]
READY_SECONDS = 30
APPLETS = ("sh", "true", "echo", "sleep", "cat", "touch", "id")

LAUNCH = LaunchPolicy(
    name="app",
    version=1,
    argv=(("/bin/touch", "/ran"), ("/bin/sleep", "re:[0-9]+"), ("/bin/true",)),
    exec=(("/bin/echo", "re:[a-z]+"),),
    env={"PATH": "/bin", "TOKEN": "re:.*"},
    cwd=("/",),
    users=("0:0",),
    capabilities=("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"),
    unconfined=True,
)


def layers(**more: bytes) -> tuple[dict, dict]:
    """Busybox at the bottom, ``more`` files on top."""
    places = {f"{name}/": folder() for name in ("bin", "dev", "etc", "proc", "sys", "tmp")}
    applets = {f"bin/{name}": link("busybox") for name in APPLETS}
    busybox = {"bin/busybox": file(BUSYBOX.read_bytes(), mode=0o755), **applets}
    bottom = {**places, **busybox, "etc/passwd": file(b"root:x:0:0:root:/root:/bin/sh\n")}
    return bottom, {f"etc/{name}": file(content) for name, content in more.items()}


def signer() -> PrivateKeySigner:
    return PrivateKeySigner(generate_key(KeyAlgorithm.ECDSA_P256))


def pem(key: PrivateKeySigner) -> str:
    return public_pem(key.public_key).decode()


@dataclass
class Node:
    """The node; ``commands`` are what images run, ``keys`` those of publishers and of whoever signs policies."""

    folder: Path
    tpm: SoftwareTpm
    settings: dict[str, object] = field(default_factory=dict)
    launch: LaunchPolicy = LAUNCH
    commands: dict[str, list[str]] = field(default_factory=dict)
    keys: dict[str, PrivateKeySigner] = field(
        default_factory=lambda: {name: signer() for name in ("acme", "umbrella", "release")}
    )

    def __post_init__(self) -> None:
        self.run = self.folder / "run"
        self.state = self.folder / "state"
        self.log = self.folder / "runc.log"
        self.socket = self.run / "gate.sock"
        self.record = self.run / "containers.cel"
        self.config = self.folder / "gate.toml"
        self.policy = self.folder / "policy.dsse"
        self.store = self.folder / "images"
        self.run.mkdir(mode=0o700)
        self.wrapper = files.write(self.folder / "lib", runtime=RUNC, gate=self.socket)
        self._write_images()
        self.write_policy(1)
        self.write_config()

    # What is there ----------------------------------------------------------------------------

    def _write_images(self) -> None:
        store = Store(self.store)
        for name in (APP, OTHER, UNSIGNED):
            parts = layers(name=name.encode())
            store.image(f"{name}:1", parts, config={"Cmd": self.commands.get(name, TOUCH)})
        self.layout = Layout(self.store)
        self.sign(APP, "acme")
        attach_launch_policy(self.target(APP), self.launch, self.keys["acme"])
        self.sign(OTHER, "umbrella")

    def target(self, repository: str):
        return target_of(self.layout, f"{repository}:1", repository)

    def sign(self, repository: str, publisher: str, *, image: str = "") -> None:
        """Sign what ``image`` names (or the repository's own) for ``repository``."""
        target = target_of(self.layout, f"{image or repository}:1", repository)
        now = datetime.now(UTC)
        sign_image(target, self.keys[publisher], SignatureFormat.COSIGN, annotations={}, now=now)

    def write_policy(self, version: int, **publishers: tuple[str, ...]) -> None:
        """The signed policy; ``publishers`` say who may publish in ``app`` and ``other``."""
        may = {"app": ("acme",), "other": ("umbrella",)} | publishers
        document = ContainerPolicy(
            name="fleet",
            version=version,
            publishers=tuple(
                Publisher(name=name, keys=(pem(self.keys[name]),)) for name in ("acme", "umbrella")
            ),
            scopes=(
                Scope(repository=APP, publishers=may["app"]),
                Scope(repository=OTHER, publishers=may["other"]),
                Scope(repository=UNSIGNED, publishers=("acme",)),
            ),
            default_launch=self.launch,
        )
        self.policy.write_bytes(seal_document(document, (), self.keys["release"]))

    def write_config(self) -> None:
        key = self.folder / "release.pub"
        key.write_text(pem(self.keys["release"]))
        settings = {
            "policy": str(self.policy),
            "policy_keys": [str(key)],
            "images": [str(self.store)],
            "socket": str(self.socket),
            "runtime_dir": str(self.run),
            "record": str(self.record),
            "tcti": self.tpm.tcti,
            **self.settings,
        }
        text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
        self.config.write_text(text)

    def bundle(self, repository: str, *argv: str, name: str = "bundle", **changes) -> Path:
        """The image of a repository, unpacked into a bundle that runs ``argv``."""
        place = self.folder / name
        root = place / "rootfs"
        root.mkdir(parents=True)
        for layer in layers(name=repository.encode()):
            with tarfile.open(fileobj=BytesIO(tar(layer))) as archive:
                archive.extractall(root)
        self.configure(place, *argv, **changes)
        return place

    def configure(self, bundle: Path, *argv: str, **changes) -> None:
        config = config_for(*(argv or TOUCH), **{"env": [PATH], **changes})
        (bundle / "config.json").write_text(json.dumps(config))

    # The gate -------------------------------------------------------------------------------

    @contextmanager
    def gate(self) -> Iterator[subprocess.Popen[bytes]]:
        """The gate as a process, serving."""
        process = self.start_gate()
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(READY_SECONDS) is not None

    def start_gate(self) -> subprocess.Popen[bytes]:
        """Start the gate and wait until it serves."""
        with (self.folder / "gate.out").open("ab") as out:
            before = out.tell()
            process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-m", "catena.agent.gate", self.config],
                stdout=out,
                stderr=out,
            )
        deadline = time.monotonic() + READY_SECONDS
        while b'"started"' not in self.said()[before:]:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise AssertionError(self.said()[before:].decode())
            time.sleep(0.01)
        return process

    def said(self) -> bytes:
        """What gates printed."""
        return (self.folder / "gate.out").read_bytes()

    # Containers -----------------------------------------------------------------------------

    def call(self, *words: str | Path, **more) -> subprocess.CompletedProcess:
        """The wrapper with the node's own state folder and log."""
        options = ("--root", self.state, "--log", self.log, "--log-format", "json")
        return finished([str(self.wrapper), *map(str, options), *map(str, words)], **more)

    def clean(self) -> None:
        """Remove the containers that a test left."""
        for state in self.state.glob("*"):
            finished([str(RUNC), "--root", str(self.state), "delete", "--force", state.name])

    # The record -----------------------------------------------------------------------------

    def events(self) -> tuple[RecordedEvent, ...]:
        return read_record(self.record.read_bytes())

    def kinds(self) -> list[str]:
        return [one.event.__struct_config__.tag for one in self.events()]

    def codes(self) -> list[str]:
        """Of the refusals."""
        return [one.event.code for one in self.events() if hasattr(one.event, "code")]

    def await_kind(self, kind: str, count: int = 1) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while self.kinds().count(kind) < count:
            assert time.monotonic() < deadline, self.kinds()
            time.sleep(0.01)

    def check_replay(self) -> None:
        """The record replays to the TPM's PCR, in every bank. The gate must not run."""
        with open_tpm(self.tpm.tcti) as tpm:
            for bank in (HashAlg.SHA256, HashAlg.SHA384):
                assert replay(self.events(), bank)[-1] == tpm.read_pcrs(bank, [15])[0]
