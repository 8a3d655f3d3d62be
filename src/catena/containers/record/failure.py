"""Why an event cannot be recorded, and so nothing may start."""

from __future__ import annotations

from catena.errors import Refusal, Unavailable


class RecordUnwritable(Unavailable):
    """The record file cannot be opened or written; what was written of an event is gone again."""

    code = "record-unwritable"
    remedy = "Free space on the disk, or check the folder of the record; then try again."


class RecordFull(Unavailable):
    """The record has no room for one more event that evidence could carry."""

    code = "record-full"
    remedy = "Drain and reboot the node: a new boot begins a new record."


class RecordInUse(Unavailable):
    """Another gate writes this record."""

    code = "record-in-use"
    remedy = "Stop the other gate first; only one may record."


class RecorderStopped(Unavailable):
    """File and TPM may disagree since a failure; nothing is recorded before recovery."""

    code = "recorder-stopped"
    remedy = "See the failure that stopped it; restart the gate, which recovers the record."


class ExposedRecord(Refusal):
    """The record, or its folder, is not the gate's own: others could have written it."""

    code = "record-exposed"
    remedy = "Name a folder that the gate's user owns and nobody else may write to."
