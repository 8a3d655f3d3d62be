"""Container records as a gate would write them, honest and otherwise.

A ``Recording`` keeps the PCR's value in every bank beside the records, so that what it says can be
replayed from the boot it was made for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from catena.formats import containerlog
from catena.formats.cel import CelRecord, encode_tlv
from catena.formats.containerlog import (
    CONTENT,
    ContainerEvent,
    Create,
    Deny,
    Exec,
    Exit,
    GateStart,
    Launch,
    PolicyInForce,
)
from catena.formats.containerpolicy import ContainerPolicy, Publisher, Scope, policy_digest
from catena.ids import HashAlg

SHA256, SHA384 = HashAlg.SHA256, HashAlg.SHA384
BEGIN = datetime(2030, 1, 2, tzinfo=UTC)
BOOT_ID = "11111111-2222-3333-4444-555555555555"
IMAGE = f"sha256:{'ab' * 32}"
REPOSITORY = "registry.acme.example/shop/web"


def container_policy(version: int = 1, **changes) -> ContainerPolicy:
    """Acme publishes everything of its registry, and a guest one repository of another."""
    fields = {
        "name": "acme-containers",
        "version": version,
        "publishers": (Publisher(name="acme"), Publisher(name="guest")),
        "scopes": (
            Scope(repository="registry.acme.example/*", publishers=("acme",)),
            Scope(repository="docker.io/guest/tool", publishers=("guest",)),
        ),
    }
    return ContainerPolicy(**{**fields, **changes})


POLICY = container_policy()


@dataclass
class Recording:
    """A gate's record in the making; ``base`` is what the boot left in the PCR, per bank."""

    base: dict[HashAlg, bytes] = field(default_factory=lambda: {b: bytes(b.size) for b in BANKS})
    pcr: int | None = 15
    nv_index: int | None = None
    policy: str = policy_digest(POLICY)
    content_type: int = CONTENT
    seconds: int = 0
    data: bytes = b""
    count: int = 0
    places: list[int] = field(default_factory=list)
    """Where each record ends."""

    def __post_init__(self) -> None:
        self.values = dict(self.base)

    def append(self, content: bytes, **changes) -> Recording:
        digests = {bank: bank.digest(content) for bank in self.values}
        fields = {
            "index": self.count,
            "pcr": self.pcr,
            "nv_index": self.nv_index,
            "digests": digests,
            "content_type": str(self.content_type),
            "content": content,
            "offset": 0,
        }
        self.data += encode_tlv(CelRecord(**{**fields, **changes}))
        self.count += 1
        self.places.append(len(self.data))
        for bank, digest in digests.items():
            self.values[bank] = bank.digest(self.values[bank] + digest)
        return self

    def event(self, event: ContainerEvent) -> Recording:
        return self.append(containerlog.encode(event))

    def at(self) -> datetime:
        self.seconds += 1
        return BEGIN + timedelta(seconds=self.seconds)

    def gate_start(self, **changes) -> Recording:
        banks = {bank.value: value.hex() for bank, value in self.values.items()}
        fields = {"at": self.at(), "boot": BOOT_ID, "catena": "0.4", "banks": banks}
        return self.event(GateStart(**{**fields, **changes}))

    def in_force(self, policy: ContainerPolicy = POLICY) -> Recording:
        self.policy = policy_digest(policy)
        return self.event(
            PolicyInForce(
                at=self.at(), policy=self.policy, name=policy.name, version=policy.version
            )
        )

    def begun(self) -> Recording:
        return self.gate_start().in_force()

    def create(self, container: str = "web-1", **changes) -> Recording:
        fields = {
            "at": self.at(),
            "container": container,
            "image": IMAGE,
            "repository": REPOSITORY,
            "publisher": "acme",
            "signature": "cosign-legacy",
            "root": "cd" * 32,
            "policy": self.policy,
            "launch": launch(),
        }
        return self.event(Create(**{**fields, **changes}))

    def exec(self, container: str = "web-1", **changes) -> Recording:
        fields = {
            "at": self.at(),
            "container": container,
            "image": IMAGE,
            "policy": self.policy,
            "launch": launch("sh", "-c", "true"),
        }
        return self.event(Exec(**{**fields, **changes}))

    def deny(self, container: str = "evil", **changes) -> Recording:
        fields = {
            "at": self.at(),
            "container": container,
            "verb": "create",
            "code": "image-unsigned",
            "message": "nobody signed this image",
            "image": IMAGE,
            "policy": self.policy,
        }
        return self.event(Deny(**{**fields, **changes}))

    def exit(self, container: str = "web-1") -> Recording:
        return self.event(Exit(at=self.at(), container=container))


BANKS = (SHA256, SHA384)


def launch(*argv: str) -> Launch:
    return Launch(argv=argv or ("/bin/server",), argv_total=len(argv) or 1, config="ef" * 32)
