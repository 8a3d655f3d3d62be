"""A confidential VM's log read as a TPM's: which PCR each measurement would be in.

A CCEL counts measurement registers (UEFI 2.10, 38.4.1): 1 stands for PCRs 1 and 7, 2 for PCRs 2
to 6, 3 for those from 8 on. Which of them it is shows in the data under the digest; images that
are drivers only by their type are told apart by it, which changes where they are listed and
nothing else. This is for telling a boot: registers are replayed and compared as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import msgspec

from catena.errors import FormatError
from catena.formats import efi, gpt
from catena.formats.tcglog import Event, EventLog, EventType
from catena.ids import HashAlg
from catena.measure.binding import GRUB_PCR, UKI_PCR, Binding, binding
from catena.measure.grammar import separator_digests

_FIRMWARE, _BOOT, _SYSTEM = 1, 2, 3
_CONFIGURATION_PCR, _DRIVER_PCR, _IMAGE_PCR, _BOOT_PCR, _KEY_PCR = 1, 2, 4, 5, 7
_FILE_PCR, _MOK_PCR = 9, 14
_BOOT_ACTIONS = (gpt.SIGNATURE, b"Exit Boot Services")
_DRIVERS = frozenset(
    {EventType.EV_EFI_BOOT_SERVICES_DRIVER, EventType.EV_EFI_RUNTIME_SERVICES_DRIVER}
)


def as_pcrs(log: EventLog, bank: HashAlg) -> EventLog:
    """The log of a confidential VM with PCRs for registers; any other log as it is."""
    return replace(log, events=tuple(_events(log, bank))) if log.format == "ccel" else log


def _events(log: EventLog, bank: HashAlg) -> Iterator[Event]:
    """In register 3, what follows the name of an image's section is the section."""
    separators = separator_digests(bank)
    section = False
    for event in log.events:
        pcr = event.pcr
        if pcr == _FIRMWARE:
            pcr = _KEY_PCR if event.digests.get(bank) in separators else _firmware(event)
        elif pcr == _BOOT:
            pcr = _boot(event)
        elif pcr == _SYSTEM:
            pcr = UKI_PCR if section else _system(event, bank)
            section = pcr == UKI_PCR and not section
        yield msgspec.structs.replace(event, pcr=pcr)


def _firmware(event: Event) -> int:
    """Keys and modes are variables; so are boot options, which belong to configuration."""
    try:
        name = efi.parse_variable(event.data).name
    except FormatError:
        return _CONFIGURATION_PCR
    return _CONFIGURATION_PCR if name.startswith("Boot") else _KEY_PCR


def _boot(event: Event) -> int:
    if event.data.startswith(_BOOT_ACTIONS):
        return _BOOT_PCR
    return _DRIVER_PCR if event.type in _DRIVERS else _IMAGE_PCR


def _system(event: Event, bank: HashAlg) -> int:
    if event.data.startswith(b"Mok"):
        return _MOK_PCR
    if binding(_in(event, UKI_PCR), bank) is Binding.SECTION_NAME:
        return UKI_PCR
    bound = binding(_in(event, GRUB_PCR), bank) is not Binding.NONE
    return GRUB_PCR if bound else _FILE_PCR


def _in(event: Event, pcr: int) -> Event:
    return msgspec.structs.replace(event, pcr=pcr)
