"""A log of its own whose entries are exported, for tests of every kind of receiver."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from catena.audit.entries import Denial
from catena.audit.folder import LogFolder
from catena.audit.leaf import seal_entry
from catena.audit.log import TransparencyLog
from catena.keys.signer import KeyAlgorithm, PrivateKeySigner, generate_key
from catena.server import export_target, exporting
from catena.server.exporting import Exporters

ORIGIN = "log.example.org/fleet"
AT = datetime(2026, 1, 2, 3, 4, 5, 678900, UTC)


def wait_for(condition):
    end = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module")
def signer():
    return PrivateKeySigner(generate_key(KeyAlgorithm.ED25519))


def denial(number: int, message: str = "no") -> Denial:
    return Denial(
        at=AT,
        actor="server",
        request=f"request-{number}",
        code="bad",
        message=message,
        request_sha256="0" * 64,
    )


@pytest.fixture
def log(tmp_path, signer):
    log = TransparencyLog.create(tmp_path / "log", ORIGIN, signer)
    yield log
    log.close()


@pytest.fixture
def append(log, signer):
    def append(count: int, message: str = "no") -> None:
        log.append([seal_entry(signer, denial(number, message)) for number in range(count)])

    return append


@pytest.fixture
def exporting_to(tmp_path, log, signer, monkeypatch):
    monkeypatch.setattr(exporting, "LOOK", 0.05)
    monkeypatch.setattr(exporting, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(exporting, "BACK_OFF", 0.1)
    made: list[Exporters] = []

    def make(target: str) -> Exporters:
        made.append(
            Exporters(
                LogFolder(tmp_path / "log"),
                signer.public_key,
                [export_target.parse(target)],
                origin=ORIGIN,
                name="trust.example.org",
                folder=tmp_path,
                write=lines.append,
            )
        )
        made[-1].start()
        return made[-1]

    lines: list[str] = []
    make.lines = lines
    yield make
    for one in made:
        one.stop()


def only(exporters: Exporters):
    (report,) = exporters.status().exports
    return report


__all__ = ["append", "exporting_to", "log", "signer"]
