"""What a TPM can answer other than success, and one place that translates response codes.

``TSS2_RC`` is layered (TSS 2.0 Overview, "Response Code Layer IDs"): layer 0 is the TPM's own
answer, layer 10 the transport to it. A transport error means that there is no TPM to talk to;
anything else means that the TPM, or the library on its behalf, refused one command.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from catena.errors import Refusal, Unavailable

try:
    from tpm2_pytss import TSS2_Exception
except ImportError as missing:
    raise Unavailable(
        "the TPM library tpm2-pytss is not installed (pip: catena[agent])"
    ) from missing

_LAYER_SHIFT = 16
_TCTI_LAYER = 10
_FORMAT_ONE = 0x80
_FORMAT_ONE_ERROR = 0xBF
"""Format 1 carries the number of a parameter, handle or session beside the error (Part 2, 6.6.2)."""

RC_FAILURE = 0x101
RC_PCR_CHANGED = 0x128
RC_NV_UNINITIALIZED = 0x14A
RC_VALUE = 0x084
RC_SIZE = 0x095
RC_POLICY_FAIL = 0x09D
RC_INTEGRITY = 0x09F


class TpmUnavailable(Unavailable):
    """No TPM answers at the configured place."""

    code = "tpm-unavailable"
    remedy = (
        "Check that the machine has a TPM 2.0 that firmware enables, that /dev/tpmrm0 exists, "
        "and that this user may open it."
    )


class TpmFailed(Unavailable):
    """The TPM refused a command. ``rc`` is the TSS2_RC."""

    code = "tpm-failed"
    remedy = "Look the response code up in TPM 2.0 Part 2, 6.6.3; power-cycle if it persists."

    def __init__(self, command: str, rc: int, meaning: str) -> None:
        super().__init__(f"{command} failed", got=f"0x{rc:x} {meaning}")
        self.command = command
        self.rc = rc

    @property
    def error(self) -> int:
        """The error code alone, to compare with the ``RC_`` constants."""
        return self.rc & _FORMAT_ONE_ERROR if self.rc & _FORMAT_ONE else self.rc


class ForeignSeal(Refusal):
    """A sealed object or credential that this TPM's EK does not open: made for another, or changed."""

    code = "tpm-foreign-seal"
    remedy = "It was sealed to another TPM or altered on the way; ask for one sealed to this TPM."


class PcrPolicyUnmet(Refusal):
    """The PCRs do not hold the values that the object was sealed to."""

    code = "tpm-pcr-policy"
    remedy = "This machine booted differently than when the secret was sealed; attest again."


class BankMissing(Unavailable):
    """The PCR bank that was asked for is not allocated in this TPM."""

    code = "tpm-bank-missing"
    remedy = "Enable the bank in firmware setup, or configure a bank that the TPM has."


class UnsteadyPcrs(Unavailable):
    """PCRs kept changing between reading and quoting them."""

    code = "tpm-unsteady-pcrs"
    remedy = "Something extends PCRs all the time; find it, or attest when the boot is over."


@contextmanager
def command(name: str) -> Iterator[None]:
    """Run TPM commands; a ``TSS2_Exception`` inside becomes ``TpmFailed`` or ``TpmUnavailable``."""
    try:
        yield
    except TSS2_Exception as error:
        rc = int(error.rc)
        if rc >> _LAYER_SHIFT == _TCTI_LAYER:
            raise TpmUnavailable(
                f"the TPM stopped answering during {name}", got=str(error)
            ) from error
        raise TpmFailed(name, rc, str(error)) from error
