from __future__ import annotations

import pytest
from tpm2_pytss.TSS2_Exception import TSS2_Exception

from catena.tpm.failure import (
    RC_FAILURE,
    RC_INTEGRITY,
    RC_POLICY_FAIL,
    TpmFailed,
    TpmUnavailable,
    command,
)

TCTI_IO_ERROR = 0x000A000A


@pytest.mark.parametrize(
    ("rc", "error"),
    [
        (0x1DF, RC_INTEGRITY),  # parameter 1
        (0x99D, RC_POLICY_FAIL),  # session 1
        (0x101, RC_FAILURE),
    ],
)
def test_response_code_is_compared_without_its_position(rc: int, error: int):
    with pytest.raises(TpmFailed) as caught, command("TPM2_Test"):
        raise TSS2_Exception(rc)
    assert caught.value.error == error
    assert str(caught.value).startswith(f"TPM2_Test failed (got 0x{rc:x} ")


def test_transport_failure_means_that_there_is_no_tpm():
    with pytest.raises(TpmUnavailable), command("TPM2_Test"):
        raise TSS2_Exception(TCTI_IO_ERROR)
