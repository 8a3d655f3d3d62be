"""Why a record is not believed, or does not take an event."""

from __future__ import annotations

from catena.errors import Refusal


class RecordRefused(Refusal):
    """A record that is not what a gate wrote. Subclasses say why."""

    code = "record-refused"
    remedy = "Keep the record as evidence, replace the machine's state and reboot it."


class RecordMismatch(RecordRefused):
    """The record does not replay to what the TPM holds, or was altered."""

    code = "record-mismatch"
    remedy = (
        "Somebody edited the record, or extended its PCR beside it. Keep the file as evidence "
        "and reboot: the containers of this boot cannot be proven any more."
    )


class NoGateStart(RecordRefused):
    """A record, or what a new gate wrote, does not begin with a gate-start."""

    code = "record-no-gate-start"


class OtherBoot(RecordRefused):
    """A gate-start inside a record names another boot."""

    code = "record-other-boot"


class TimeWentBack(RecordRefused):
    """An event is older than the one before it."""

    code = "record-time-went-back"


class NoPolicyInForce(RecordRefused):
    """Something was allowed though no policy was in force, or another one."""

    code = "record-no-policy"
    remedy = "Decide again under the policy in force."


class NoSuchContainer(RecordRefused):
    """An exec or exit of a container that was not created, has exited, or has another image."""

    code = "record-no-such-container"
    remedy = "Only containers that were started through the gate can be used through it."
