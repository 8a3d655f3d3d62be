"""Wire bytes to the TPM library's structures: exactly one structure, nothing after it."""

from __future__ import annotations

from typing import TypeVar, cast

from tpm2_pytss.TSS2_Exception import TSS2_Exception
from tpm2_pytss.types import TPM_OBJECT

from catena.errors import FormatError

T = TypeVar("T", bound=TPM_OBJECT)


def unmarshal(kind: type[T], data: bytes) -> T:
    """Read ``data`` as ``kind``. Raises ``FormatError``."""
    try:
        value, used = kind.unmarshal(data)
    except TSS2_Exception as error:
        raise FormatError(f"not a {kind.__name__}") from error
    if used != len(data):
        raise FormatError(
            f"{kind.__name__} has trailing bytes", offset=used, got=f"{len(data) - used} bytes"
        )
    return cast("T", value)
