"""Events whose data must hash to their digest, and does not: somebody edited one of the two.

Of most events the digest covers something else (an image, a file), and their data only describes
it. Of a few the data *is* what is measured. Old shims log authorities six bytes longer than they
declare, so honest logs have such events, too: they prove nothing, and that is how they are taken.
"""

from __future__ import annotations

from catena.errors import Refusal
from catena.formats.tcglog import EventType
from catena.ids import HashAlg
from catena.measure.reading import Reading

_MEASURED_AS_THEY_ARE = frozenset(
    {
        int(EventType.EV_SEPARATOR),
        int(EventType.EV_EFI_ACTION),
        int(EventType.EV_EFI_GPT_EVENT),
        int(EventType.EV_EFI_VARIABLE_DRIVER_CONFIG),
        int(EventType.EV_EFI_VARIABLE_AUTHORITY),
        int(EventType.EV_EFI_VARIABLE_BOOT2),
        int(EventType.EV_S_CRTM_VERSION),
    }
)


class EditedData(Refusal):
    """Data that a digest should cover, and does not."""

    code = "edited-data"
    remedy = "Believe the digest, not the words. Compare with another copy of the log."


def edited(reading: Reading, bank: HashAlg) -> bool:
    """True if this event's data should be bound to its digest in ``bank`` and is not."""
    event = reading.event
    return (
        reading.extends
        and bank in event.digests
        and not reading.bound
        and event.type in _MEASURED_AS_THEY_ARE
    )
