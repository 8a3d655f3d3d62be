"""Events of containers, and records of them made by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from catena.containers.record.replay import extended
from catena.formats import cel
from catena.formats.containerlog import (
    Create,
    Deny,
    Exec,
    Exit,
    GateStart,
    Launch,
    PolicyInForce,
    encode,
    to_record,
)
from catena.ids import HashAlg

BANKS = (HashAlg.SHA256, HashAlg.SHA384)
ZEROS = {bank: bytes(bank.size) for bank in BANKS}
BOOT = "2f1f6d0e-9f0b-4c5e-8f5a-0f3f3c1d2b4a"
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
POLICY = "ab" * 32
IMAGE = "sha256:" + "cd" * 32

LAUNCH = Launch(
    argv=("/bin/app", "--serve"),
    argv_total=2,
    user="1000:1000",
    env={"PATH": "11" * 32, "TOKEN": "22" * 32},
    mounts=("/data bind /srv/data ro",),
    capabilities=("CAP_NET_BIND_SERVICE",),
    config="ef" * 32,
)


def later(seconds: float):
    return NOON + timedelta(seconds=seconds)


def gate_start(seconds=0, values=None, boot=BOOT):
    banks = {bank.value: value.hex() for bank, value in (values or ZEROS).items()}
    return GateStart(at=later(seconds), boot=boot, catena="1.0", banks=banks)


def policy(seconds=1, digest=POLICY):
    return PolicyInForce(at=later(seconds), policy=digest, name="site", version=3)


def create(seconds=2, container="web", **changes):
    known = {
        "sandbox": "pod-1",
        "image": IMAGE,
        "repository": "registry.example/web",
        "publisher": "acme",
        "signature": "cosign",
        "root": "01" * 32,
        "policy": POLICY,
        "launch_policy": "02" * 32,
        "launch": LAUNCH,
    }
    return Create(at=later(seconds), container=container, **{**known, **changes})


def execute(seconds=3, container="web", **changes):
    known = {"image": IMAGE, "policy": POLICY, "launch": LAUNCH}
    return Exec(at=later(seconds), container=container, **{**known, **changes})


def deny(seconds=4, container="bad", **changes):
    known = {"verb": "create", "code": "unsigned", "message": "no signature", "image": IMAGE}
    return Deny(at=later(seconds), container=container, **{**known, **changes})


def leave(seconds=5, container="web"):
    return Exit(at=later(seconds), container=container)


def story():
    """One event of every kind, in an order that holds."""
    return (gate_start(), policy(), create(), execute(), deny(), leave())


def record_of(*events, banks=BANKS, pcr=15, nv_index=None):
    """The bytes of a record with these events, whatever their order."""
    return b"".join(
        cel.encode_tlv(to_record(index, encode(event), banks, pcr=pcr, nv_index=nv_index))
        for index, event in enumerate(events)
    )


def value_after(*events, start=None, banks=BANKS):
    """What a PCR holds after the events were extended."""
    values = dict(start or {bank: bytes(bank.size) for bank in banks})
    for event in events:
        values = extended(values, {bank: bank.digest(encode(event)) for bank in banks})
    return values
