"""One ``replace`` for all frozen values, whether they are dataclasses or structs."""

from __future__ import annotations

import dataclasses

import msgspec


def replace(value, /, **changes):
    """``value`` with other fields."""
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(value, **changes)
    return dataclasses.replace(value, **changes)
