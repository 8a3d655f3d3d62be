"""Every PCR of a boot that has not happened, from the bytes that will be booted.

====  ====================================================================================
PCR   predicted from
====  ====================================================================================
0     a capture of the firmware: what it measures of itself is in no file
1     a capture; or boot variables, if firmware measures no other settings
2, 3  a capture, or nothing but a separator if no option ROM runs
4     the images in the order they start
5     the boot disk's partition table, loader.conf, leaving the boot services
6     a capture, or nothing but a separator
7     Secure Boot's variables, then each key of db that an image needs
8     nothing: only GRUB measures into it
9     the kernel's command line and initrd
10    IMA's boot_aggregate over PCRs 0–9, if no policy measures more
11    sections of the unified kernel image, then boot phases
12    command lines, credentials and configuration from outside the image
13    system extensions
14    nothing without shim
15    nothing until the system itself measures
====  ====================================================================================

Where the boot can go several ways, each value has the branch that leads to it; what no input
tells is listed with the reason. Sources: TCG PC Client PFP 1.06; edk2; ``measure.stub``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from catena.formats import ima
from catena.formats.efi import EFI_GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, VariableData
from catena.ids import HashAlg
from catena.measure.boot_path import CAPTURED_PCRS, BootInputs
from catena.measure.chain import Chain, Measured, follow, of_data
from catena.measure.replay import extend

PCRS = range(16)
PHASES = ("enter-initrd", "leave-initrd", "sysinit", "ready")
"""What systemd measures into PCR 11 as the boot goes on (systemd-pcrphase)."""

IMA_TEMPLATES = ("ima-ng", "ima-sig")
MAX_VALUES = 64

SEPARATOR = bytes(4)
CALLING = b"Calling EFI Application from Boot Option"
EXITING = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
_KEYS = ("PK", "KEK", "db", "dbx")
_MORE_KEYS = ("dbt", "dbr")
_STATIC_FIRMWARE = (2, 3, 6)
_SETTINGS, _IMAGES, _DISK, _KEYS_PCR, _SECTIONS = 1, 4, 5, 7, 11
_AGGREGATED = range(10)
_LATE_BANKS = (HashAlg.SHA384, HashAlg.SHA512)
_NO_IMA = "the kernel has no IMA"
_UNCAPTURED = "firmware measures itself and its settings here: give a capture of such a machine"
_UNTOUCHED = {
    8: "no GRUB",
    9: "no Linux EFI stub",
    15: "until the system itself measures (machine id, volumes, containers)",
}
"""Why a PCR stays as it is."""

Banks = Sequence[HashAlg]


@dataclass(frozen=True, slots=True)
class Value:
    """One possible value, by bank; ``events`` lead to it and are empty for a captured one.

    A bank that the value is not known in is absent.
    """

    branch: str
    digests: Mapping[HashAlg, bytes]
    events: tuple[Measured, ...] = ()


@dataclass(frozen=True, slots=True)
class PcrPrediction:
    """All values that one PCR can have, or the reason why none is known."""

    pcr: int
    values: tuple[Value, ...]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """Every PCR from 0 to 15, in order."""

    banks: tuple[HashAlg, ...]
    pcrs: tuple[PcrPrediction, ...]


def predict(inputs: BootInputs, banks: Banks) -> Prediction:
    """Predict PCRs 0–15. Raises ``FormatError`` for images or variables that are malformed."""
    chains = [follow(path, inputs.firmware) for path in inputs.paths]
    if inputs.partition_table is None:
        for chain in chains:
            chain.give_up((5,), "the partition table is measured here: give the disk")
    working = tuple(dict.fromkeys((*banks, HashAlg.SHA256)))  # IMA's first entry needs the latter
    found = {pcr: _of_firmware(inputs, working, pcr) for pcr in CAPTURED_PCRS}
    for pcr in set(PCRS) - set(CAPTURED_PCRS) - {10}:
        found[pcr] = _of_chains(inputs, chains, working, pcr)
    found[10] = _ima(inputs, chains, found, working)
    return Prediction(tuple(banks), tuple(_only(found[pcr], banks) for pcr in PCRS))


def _only(prediction: PcrPrediction, banks: Banks) -> PcrPrediction:
    """The prediction in the banks that were asked for."""
    values = (
        Value(
            one.branch,
            {bank: one.digests[bank] for bank in banks if bank in one.digests},
            one.events,
        )
        for one in prediction.values
    )
    return PcrPrediction(prediction.pcr, tuple(values), prediction.reason)


def _of_firmware(inputs: BootInputs, banks: Banks, pcr: int) -> PcrPrediction:
    """As captured; or what the rules say, if firmware measures nothing of its own."""
    values = []
    capture = inputs.capture
    if capture is not None:
        known = {
            bank: capture.pcrs[bank][pcr] for bank in banks if pcr in capture.pcrs.get(bank, {})
        }
        if known:
            values.append(Value(f"firmware as captured in {capture.name}", known))
    if pcr in _STATIC_FIRMWARE:
        branch = "no option ROM, no settings of the platform"
        values.append(_value(branch, [_separator(pcr)], banks))
    options = inputs.firmware.boot_variables
    if pcr == _SETTINGS and options:
        events = [of_data(pcr, f"variable {name}", data) for name, data in options]
        branch = "boot variables as they are stored, no settings of the platform"
        values.append(_value(branch, [*events, _separator(pcr)], banks))
    reason = None if values else _UNCAPTURED
    return PcrPrediction(pcr, _agreeing(values), reason)


def _agreeing(values: Sequence[Value]) -> tuple[Value, ...]:
    """One value where a capture and the rules agree, in every bank that either knows."""
    if len(values) != 2:
        return tuple(values)
    captured, ruled = values
    if any(ruled.digests[bank] != digest for bank, digest in captured.digests.items()):
        return captured, ruled
    branch = f"{captured.branch} or {ruled.branch}"
    return (Value(branch, {**ruled.digests, **captured.digests}, ruled.events),)


def _of_chains(
    inputs: BootInputs, chains: Sequence[Chain], banks: Banks, pcr: int
) -> PcrPrediction:
    """The values of every way through the boot; ways that measure the same are one."""
    values: list[Value] = []
    for chain in chains:
        if pcr in chain.unknown:
            continue
        events = _whole(inputs, chain, pcr)
        if pcr == _SECTIONS:
            values += _with_phases(chain.name, events, banks)
            continue
        untouched = "" if events else _UNTOUCHED.get(pcr, "")
        values.append(_value(_joined(chain.name, untouched), events, banks))
    reasons = [chain.unknown[pcr] for chain in chains if pcr in chain.unknown]
    return _merged(pcr, values, reasons)


def _whole(inputs: BootInputs, chain: Chain, pcr: int) -> list[Measured]:
    """All that one way measures into a PCR: firmware's own, the chain's, firmware's again."""
    before: list[Measured] = []
    after: list[Measured] = []
    if pcr == _IMAGES:
        before = [of_data(pcr, "firmware starts a boot option", CALLING), _separator(pcr)]
    elif pcr == _DISK and inputs.partition_table is not None:
        before = [_separator(pcr), of_data(pcr, "partition table", inputs.partition_table)]
        after = [of_data(pcr, "leaving the boot services", text) for text in EXITING]
    elif pcr == _KEYS_PCR:
        firmware = inputs.firmware
        before = [_variable("SecureBoot", b"\1" if firmware.secure_boot else b"\0")]
        before += [_variable(name, firmware.keys.get(name, b"")) for name in _KEYS]
        before += [
            _variable(name, firmware.keys[name]) for name in _MORE_KEYS if name in firmware.keys
        ]
        before.append(_separator(pcr))
    return [*before, *(one for one in chain.events if one.pcr == pcr), *after]


def _with_phases(branch: str, sections: list[Measured], banks: Banks) -> Iterator[Value]:
    """Sections, then one more value for each phase that systemd may measure."""
    events = list(sections)
    yield _value(_joined(branch, "as the kernel starts"), events, banks)
    for phase in PHASES:
        events.append(of_data(_SECTIONS, f"phase {phase}", phase.encode()))
        yield _value(_joined(branch, f"after {phase}"), events, banks)


def _ima(
    inputs: BootInputs,
    chains: Sequence[Chain],
    found: Mapping[int, PcrPrediction],
    banks: Banks,
) -> PcrPrediction:
    """PCR 10 if IMA measures nothing but its first entry, over PCRs 0–9 in its own SHA-256."""
    values = [_value(_NO_IMA, [], banks)]
    captured = {pcr: _in_sha256(found[pcr]) for pcr in CAPTURED_PCRS}
    for chain in chains:
        if set(chain.unknown) & set(_AGGREGATED):
            continue
        own = {pcr: _sha256(_whole(inputs, chain, pcr)) for pcr in _AGGREGATED}
        for firmware in product(*captured.values()):
            if len(values) >= MAX_VALUES:
                return PcrPrediction(10, (), "PCRs 0–9 can have too many values together")
            held = own | {
                one: value.digests[HashAlg.SHA256]
                for one, value in zip(captured, firmware, strict=True)
            }
            ways = [
                value.branch
                for pcr, value in zip(captured, firmware, strict=True)
                if len(captured[pcr]) > 1
            ]
            branch = _joined(chain.name if len(chains) > 1 else "", *ways)
            values += _first_entries(branch, [held[pcr] for pcr in _AGGREGATED], banks)
    missing = {pcr for pcr in CAPTURED_PCRS if not captured[pcr]}
    missing |= {pcr for chain in chains for pcr in chain.unknown if pcr in _AGGREGATED}
    listed = ", ".join(map(str, sorted(missing)))
    reason = f"IMA's first entry is over PCRs 0–9; unknown: {listed}" if missing else None
    return PcrPrediction(10, tuple(values), reason)


def _first_entries(branch: str, pcrs: Sequence[bytes], banks: Banks) -> Iterator[Value]:
    """IMA's first entry in each template.

    A kernel whose SHA-384 or SHA-512 is a module extends the SHA-1 digest, padded, into such a
    bank: IMA starts before modules can be loaded.
    """
    aggregate = HashAlg.SHA256.digest(b"".join(pcrs))
    fields = (b"sha256:\0" + aggregate, b"boot_aggregate\0")
    for template in IMA_TEMPLATES:
        data = ima.encode_fields(*fields, *([b""] if template == "ima-sig" else []))
        whole = {bank: bank.digest(data) for bank in banks}
        sha1 = HashAlg.SHA1.digest(data)
        late = {bank: sha1.ljust(bank.size, b"\0") for bank in banks if bank in _LATE_BANKS}
        named = _joined(branch, f"IMA measures nothing but boot_aggregate, template {template}")
        yield _value(named, [_entry(whole | late)], banks)
        if late:
            built_in = f"{named}, SHA-384 and SHA-512 built into the kernel"
            yield _value(built_in, [_entry(whole)], banks)


def _entry(digests: Mapping[HashAlg, bytes]) -> Measured:
    return Measured(10, "IMA's boot_aggregate", digests.__getitem__)


def _in_sha256(prediction: PcrPrediction) -> list[Value]:
    return [one for one in prediction.values if HashAlg.SHA256 in one.digests]


def _sha256(events: Sequence[Measured]) -> bytes:
    return _value("", events, (HashAlg.SHA256,)).digests[HashAlg.SHA256]


def _merged(pcr: int, values: Sequence[Value], reasons: Sequence[str]) -> PcrPrediction:
    """Equal values under all their branches; reasons only if a way has no value."""
    by_digests: dict[tuple[bytes, ...], list[Value]] = {}
    for value in values:
        by_digests.setdefault(tuple(value.digests.values()), []).append(value)
    merged = tuple(
        Value(
            ""
            if len(by_digests) == 1 and not reasons and len(same) > 1
            else " or ".join(dict.fromkeys(one.branch for one in same if one.branch)),
            same[0].digests,
            same[0].events,
        )
        for same in by_digests.values()
    )
    return PcrPrediction(pcr, merged, "; ".join(dict.fromkeys(reasons)) or None)


def _value(branch: str, events: Sequence[Measured], banks: Banks) -> Value:
    digests = {bank: extend(bank, (event.digest(bank) for event in events)) for bank in banks}
    return Value(branch, digests, tuple(events))


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _separator(pcr: int) -> Measured:
    return of_data(pcr, "separator", SEPARATOR)


def _variable(name: str, data: bytes) -> Measured:
    guid = IMAGE_SECURITY_DATABASE if name.startswith("db") else EFI_GLOBAL_VARIABLE
    return of_data(7, f"variable {name}", VariableData(guid, name, data).encode())
