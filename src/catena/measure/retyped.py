"""Events whose type is not that of the data under their digest: somebody wrote another type.

No digest covers a type. Data that is proven byte for byte speaks for itself, though: a firmware
variable, a partition table and the name of a kernel image's section are what they are under any
type, and what catena makes of them does not change. That somebody relabelled them does.
"""

from __future__ import annotations

from collections.abc import Callable

from catena.formats import gpt
from catena.formats.tcglog import EventType, event_type_name
from catena.measure.binding import Binding
from catena.measure.grammar import RetypedEvent
from catena.measure.reading import Reading

_VARIABLE_PCRS = frozenset({1, 7})


def retyped(reading: Reading) -> RetypedEvent | None:
    """The fault of an event whose type contradicts its proven data."""
    for what, types, is_so in _FORMS:
        if reading.event.type not in types and is_so(reading):
            return RetypedEvent(
                f"what was measured is a {what}, its type is another",
                index=reading.event.index,
                got=event_type_name(reading.event.type),
            )
    return None


def _is_partition_table(reading: Reading) -> bool:
    return reading.whole and reading.event.data.startswith(gpt.SIGNATURE)


def _is_variable(reading: Reading) -> bool:
    if not reading.whole or reading.event.pcr not in _VARIABLE_PCRS:
        return False
    variable = reading.variable
    return variable is not None and bool(variable.name) and variable.name.isprintable()


def _is_section_name(reading: Reading) -> bool:
    return reading.binding is Binding.SECTION_NAME


_FORMS: tuple[tuple[str, frozenset[int], Callable[[Reading], bool]], ...] = (
    (
        "partition table",
        frozenset({EventType.EV_EFI_GPT_EVENT, EventType.EV_EFI_GPT_EVENT2}),
        _is_partition_table,
    ),
    (
        "firmware variable",
        frozenset(
            {
                EventType.EV_EFI_VARIABLE_DRIVER_CONFIG,
                EventType.EV_EFI_VARIABLE_BOOT,
                EventType.EV_EFI_VARIABLE_BOOT2,
                EventType.EV_EFI_VARIABLE_AUTHORITY,
            }
        ),
        _is_variable,
    ),
    ("section name", frozenset({EventType.EV_IPL}), _is_section_name),
)
