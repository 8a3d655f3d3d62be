"""A gate's side of a record: a recorder over a real TPM, and what must hold afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import small_indices
from catena.agent.gate.register import space_of
from catena.containers.record.recorder import Recorder
from catena.containers.record.replay import (
    RecordedEvent,
    check_sequence,
    read_record,
    replay,
    start_of,
)
from catena.tpm.extender import PcrExtender, open_pcr
from catena.tpm.nvindex import open_nv
from small_records import BOOT, policy


def now():
    return datetime.now(UTC)


@contextmanager
def recorder_of(path: Path, tcti: str, *, boot=BOOT, **options) -> Iterator[Recorder]:
    """A recorder that has not recovered yet."""
    with register_of(tcti, options) as tpm:
        recorder = Recorder(path, tpm, options.pop("now", now), boot=boot, **options)
        try:
            yield recorder
        finally:
            recorder.close()


@contextmanager
def register_of(tcti: str, options):
    """A PCR, or the NV index ``nv_index``, opened and sealed as a gate does it."""
    if options.get("nv_index") is None:
        with open_pcr(tcti, options.get("pcr", 15)) as tpm:
            yield tpm
        return
    small_indices.seal(tcti)
    with open_nv(tcti, space_of(options["nv_index"], small_indices.PCR)) as tpm:
        yield tpm


@contextmanager
def gate_of(path: Path, tcti: str, **options) -> Iterator[Recorder]:
    """A recorder that a gate has recovered and begun with."""
    with recorder_of(path, tcti, **options) as recorder:
        begin(recorder)
        yield recorder


def begin(recorder: Recorder):
    found = recorder.recover()
    recorder.append(recorder.gate_start("test"))
    recorder.append(policy())
    return found


def agreed(path: Path, tpm: PcrExtender) -> tuple[RecordedEvent, ...]:
    """The events of a record that is in order and replays to the TPM in every bank."""
    events = read_record(path.read_bytes())
    check_sequence(events)
    for bank, start in start_of(events).items():
        assert replay(events, bank, start)[-1] == tpm.read(bank), bank
    assert set(start_of(events)) == set(tpm.banks())
    return events


def kinds(events: tuple[RecordedEvent, ...]) -> list[str]:
    return [one.event.__struct_config__.tag for one in events]
