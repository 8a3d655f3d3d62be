"""Which TPM it is: facts for policies, from an EK certificate that an accepted root vouches for.

Discrete, firmware and virtual TPMs differ in who has to be trusted: the maker of a chip, the maker
of a processor and its firmware, the owner of a hypervisor. A vendor makes one kind, so the vendor
tells it; one that makes several, or that is not known here, leaves it unknown. What a root of the
kind ``software`` vouches for is virtual, whatever the certificate says.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from catena.formats.ekattributes import EkAttributes

Word = Annotated[str, msgspec.Meta(max_length=64)]

UNJUDGED = ("unknown",)
"""The tolerances of a certificate that was judged before they had names."""


class TpmType(StrEnum):
    """How a TPM is made (TCG EK Credential Profile 2.5, clause 1)."""

    DISCRETE = "discrete"
    FIRMWARE = "firmware"
    VIRTUAL = "virtual"
    UNKNOWN = "unknown"


_DISCRETE = (
    "ATML",
    "BRCM",
    "FLYS",
    "IFX",
    "NSM",
    "NTC",
    "NTZ",
    "ROCC",
    "SMSC",
    "SNS",
    "STM",
    "TXN",
    "WEC",
)
_FIRMWARE = ("AMD", "INTC", "QCOM")
_VIRTUAL = ("GOOG", "VMW", "id:00001014")
"""TCG Vendor ID Registry 1.06; the last is swtpm's. Microsoft (``MSFT``) makes a chip's firmware and
a hypervisor's TPM, so it is in none."""

_TYPES = {
    **dict.fromkeys(_DISCRETE, TpmType.DISCRETE),
    **dict.fromkeys(_FIRMWARE, TpmType.FIRMWARE),
    **dict.fromkeys(_VIRTUAL, TpmType.VIRTUAL),
}


class TpmIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Type, vendor, model and version as certified when the TPM was made; empty if unknown.

    ``tolerances`` names what its certificates were forgiven. The firmware that runs now is in
    each quote.
    """

    type: Word = TpmType.UNKNOWN
    vendor: Word = ""
    model: Word = ""
    version: Word = ""
    tolerances: Annotated[tuple[Word, ...], msgspec.Meta(max_length=16)] = ()


NOT_CERTIFIED = TpmIdentity()
"""A TPM whose EK is pinned: no certificate says which one it is."""

UNKNOWN_TPM = TpmIdentity(tolerances=UNJUDGED)
"""A TPM that was enrolled before its identity was kept."""


def identify(
    attributes: EkAttributes, *, is_software: bool, tolerances: tuple[str, ...]
) -> TpmIdentity:
    """The identity that a verified EK certificate gives."""
    known = _TYPES.get(attributes.vendor, TpmType.UNKNOWN)
    return TpmIdentity(
        type=str(TpmType.VIRTUAL if is_software else known),
        vendor=attributes.vendor,
        model=attributes.model,
        version=attributes.version,
        tolerances=tolerances,
    )
