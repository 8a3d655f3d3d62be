"""What firmware, stub and kernel will measure when a release boots.

The boot is direct: Secure Boot on, firmware starts the UKI from the ESP, nothing in between.

====  ==================================================================================
PCR   extended with, in order
====  ==================================================================================
4     "Calling EFI Application from Boot Option", separator, Authenticode of the UKI
5     separator, UEFI_GPT_DATA, "Exit Boot Services Invocation", "… Returned with Success"
9     kernel: LoadOptions (the command line in UTF-16 with NUL), the initrd
11    stub: of each section in its order, the name with NUL, the content
10    kernel (IMA): boot_aggregate, then every module that is loaded (lockdown, Secure Boot)
12    nothing: the command line is a section, and the stub takes no other
====  ==================================================================================

Sources: TCG PC Client PFP 1.06; systemd-stub(7) and its source; Linux, drivers/firmware/efi/libstub.
The stub's section list depends on its version: a stub that is not in the table is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from catena.errors import FormatError
from catena.formats import ima
from catena.formats.gpt import PartitionTable
from catena.formats.pe import PeImage
from catena.formats.references import ExpectedEvent, PcrTable
from catena.ids import HashAlg
from catena.measure.prediction import CALLING, EXITING, SEPARATOR
from catena.measure.replay import extend
from catena.measure.stub import STUBS, measured_sections, program
from catena.osimage import initrd

BANKS = (HashAlg.SHA256, HashAlg.SHA384)
RELEASE_STUBS = (252, 254)
"""Stubs whose kernel gets the initrd of the image and nothing else, as a release's events say."""

RELEASE_PCRS = (4, 5, 9, 11, 12)


class UnknownStub(FormatError):
    """A stub whose measurements are not known, so nothing could be predicted."""

    code = "unknown-stub"
    remedy = "Use systemd-stub 252 (Debian 12, package systemd-boot-efi)."


class IncompleteUki(FormatError):
    """A UKI without a section that every release has."""

    code = "incomplete-uki"
    remedy = "Build the image with `catena os build`."


def release_events(uki: PeImage, table: PartitionTable) -> tuple[ExpectedEvent, ...]:
    """The measurements that only this release explains, in the order they happen."""
    return (
        _event("gpt", 5, "partition table of the release's disk", table.event_data()),
        ExpectedEvent(
            id="uki",
            pcr=4,
            what="unified kernel image (Authenticode digest)",
            digests={bank.value: uki.authenticode(bank).hex() for bank in BANKS},
        ),
        *_section_events(uki),
        _event(
            "load-options", 9, "kernel command line as the kernel received it", load_options(uki)
        ),
        _event("initrd", 9, "initrd as the kernel received it", section_content(uki, ".initrd")),
    )


def module_events(uki: PeImage) -> tuple[ExpectedEvent, ...]:
    """What the kernel's own IMA policy measures with Secure Boot on: every module it loads.

    Template ima-sig without a signature. PCR 10 has no final value: user space may load the
    modules of its release, or not.
    """
    modules = initrd.loaded_modules(section_content(uki, ".initrd"))
    return tuple(
        _event(
            f"module:{path.name}",
            10,
            f"kernel module {path}",
            ima.encode_fields(
                b"sha256:\0" + hashlib.sha256(content).digest(), f"{path}\0".encode(), b""
            ),
        )
        for path, content in modules.items()
    )


def pcr_values(events: Sequence[ExpectedEvent]) -> PcrTable:
    """Final values of ``RELEASE_PCRS``: the release's events among those of every boot."""
    return {
        bank.value: {str(pcr): _replay(bank, pcr, events).hex() for pcr in RELEASE_PCRS}
        for bank in BANKS
    }


def stub_version(uki: PeImage) -> str:
    """What the stub calls itself in ``.sdmagic``, such as "systemd-stub 252.39-1". Raises ``UnknownStub``."""
    return _stub(uki)[0]


def load_options(uki: PeImage) -> bytes:
    """The kernel's LoadOptions: the stub's UTF-16 form of ``.cmdline``, with its NUL."""
    text = section_content(uki, ".cmdline").decode("ascii", errors="replace")
    return f"{text}\0".encode("utf-16-le")


def section_content(uki: PeImage, name: str) -> bytes:
    """A section's loaded content. Raises ``IncompleteUki``."""
    section = uki.section(name)
    if section is None:
        raise IncompleteUki("unified kernel image lacks a section", expected=name)
    return uki.content(section)


def _section_events(uki: PeImage) -> list[ExpectedEvent]:
    _, version = _stub(uki)
    events: list[ExpectedEvent] = []
    for name, content in measured_sections(uki, STUBS[version]):
        label = f"name of section {name}"
        events.append(_event(f"section-name:{name}", 11, label, name.encode() + b"\0"))
        label = f"content of section {name}"
        events.append(_event(f"section:{name}", 11, label, content))
    return events


def _stub(uki: PeImage) -> tuple[str, int]:
    found = program(uki)
    if found.kind != "stub":
        raise UnknownStub("image has no systemd stub (.sdmagic)")
    if found.version not in RELEASE_STUBS:
        known = ", ".join(str(one) for one in RELEASE_STUBS)
        raise UnknownStub("stub of an unknown version", expected=known, got=found.name)
    return found.name, found.version


def _event(identifier: str, pcr: int, what: str, data: bytes) -> ExpectedEvent:
    digests = {bank.value: bank.digest(data).hex() for bank in BANKS}
    return ExpectedEvent(id=identifier, pcr=pcr, what=what, digests=digests)


def _replay(bank: HashAlg, pcr: int, events: Sequence[ExpectedEvent]) -> bytes:
    own = [bytes.fromhex(event.digests[bank.value]) for event in events if event.pcr == pcr]
    before = {4: (CALLING, SEPARATOR), 5: (SEPARATOR,)}.get(pcr, ())
    after = EXITING if pcr == 5 else ()
    return extend(
        bank,
        (*(bank.digest(one) for one in before), *own, *(bank.digest(one) for one in after)),
    )
