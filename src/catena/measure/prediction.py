"""Every PCR of a boot that has not happened, from the bytes that will be booted.

====  ====================================================================================
PCR   predicted from
====  ====================================================================================
0, 1  a capture of the firmware: what it measures of itself is in no file
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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

from catena.formats import ima
from catena.formats.efi import EFI_GLOBAL_VARIABLE, IMAGE_SECURITY_DATABASE, VariableData
from catena.formats.pe import PeImage
from catena.ids import HashAlg
from catena.measure.boot_path import BootInputs
from catena.measure.chain import Chain, Measured, follow, of_data
from catena.measure.verification import accepting_entry

PCRS = range(16)
PHASES = ("enter-initrd", "leave-initrd", "sysinit", "ready")
"""What systemd measures into PCR 11 as the boot goes on (systemd-pcrphase)."""

IMA_TEMPLATES = ("ima-ng", "ima-sig")
MAX_VALUES = 64

_SEPARATOR = bytes(4)
_CALLING = b"Calling EFI Application from Boot Option"
_EXITING = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
_KEYS = ("PK", "KEK", "db", "dbx")
_MORE_KEYS = ("dbt", "dbr")
_STATIC_FIRMWARE = (2, 3, 6)

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
    found: dict[int, PcrPrediction] = {}
    for pcr, predictor in _PREDICTORS.items():
        found[pcr] = predictor(inputs, chains, banks, pcr)
    found[10] = _ima(found, banks)
    return Prediction(tuple(banks), tuple(found[pcr] for pcr in PCRS))


def _captured(inputs: BootInputs, _: Sequence[Chain], banks: Banks, pcr: int) -> PcrPrediction:
    capture = inputs.capture
    known = {
        bank: capture.pcrs[bank][pcr]
        for bank in banks
        if capture is not None and pcr in capture.pcrs.get(bank, {})
    }
    if capture is not None and known:
        return PcrPrediction(pcr, (Value(f"firmware as captured in {capture.name}", known),))
    if pcr in _STATIC_FIRMWARE:
        branch = "no option ROM, no settings of the platform"
        return PcrPrediction(pcr, (_value(branch, [of_data(pcr, "separator", _SEPARATOR)], banks),))
    return PcrPrediction(
        pcr, (), "firmware measures itself and its settings here: give a capture of such a machine"
    )


def _images(_: BootInputs, chains: Sequence[Chain], banks: Banks, pcr: int) -> PcrPrediction:
    start = (of_data(pcr, "firmware starts a boot option", _CALLING), _separator(pcr))
    return _from_chains(pcr, chains, banks, start)


def _disk(inputs: BootInputs, chains: Sequence[Chain], banks: Banks, pcr: int) -> PcrPrediction:
    if inputs.partition_table is None:
        return PcrPrediction(pcr, (), "the partition table is measured here: give the disk")
    table = of_data(pcr, "partition table", inputs.partition_table)
    leaving = tuple(of_data(pcr, "leaving the boot services", text) for text in _EXITING)
    return _from_chains(pcr, chains, banks, (_separator(pcr), table), leaving)


def _secure_boot(
    inputs: BootInputs, chains: Sequence[Chain], banks: Banks, pcr: int
) -> PcrPrediction:
    firmware = inputs.firmware
    start = [_variable("SecureBoot", b"\1" if firmware.secure_boot else b"\0")]
    start += [_variable(name, firmware.keys.get(name, b"")) for name in _KEYS]
    start += [_variable(name, firmware.keys[name]) for name in _MORE_KEYS if name in firmware.keys]
    start.append(_separator(pcr))
    values: list[Value] = []
    reasons: list[str] = []
    for chain in chains:
        late, reason = _late_measurements(inputs, chain, pcr)
        if reason is not None:
            reasons.append(reason)
        else:
            values.append(_value(chain.name, [*start, *late], banks))
    return _merged(pcr, values, reasons)


def _late_measurements(
    inputs: BootInputs, chain: Chain, pcr: int
) -> tuple[list[Measured], str | None]:
    """Behind the separator: firmware's authorities, then shim's level and shim's authorities.

    Shim keeps its own account of what it measured already, so a key may appear twice.
    """
    if pcr in chain.unknown:
        return [], chain.unknown[pcr]
    own = [one for one in chain.events if one.pcr == pcr]
    if not inputs.firmware.secure_boot:
        return own, None
    by_firmware, reason = _authorities(inputs, chain.verified)
    by_shim, other = _authorities(inputs, chain.shim_verified)
    return [*by_firmware, *own, *by_shim], reason or other


def _authorities(
    inputs: BootInputs, images: Sequence[tuple[str, PeImage]]
) -> tuple[list[Measured], str | None]:
    """Each db entry once, when the first image needs it; or why the boot stops."""
    keys = inputs.firmware.keys
    used: dict[bytes, Measured] = {}
    for what, image in images:
        entry = accepting_entry(image, keys.get("db", b""), keys.get("dbx", b""))
        if entry is None:
            return [], f"no key of db accepts {what}: it will not be started"
        data = VariableData(IMAGE_SECURITY_DATABASE, "db", entry.encode()).encode()
        used.setdefault(data, of_data(7, f"key of db that accepts {what}", data))
    return list(used.values()), None


def _nothing(
    _: BootInputs, chains: Sequence[Chain], banks: Banks, pcr: int, *, who: str
) -> PcrPrediction:
    return _from_chains(pcr, chains, banks, otherwise=who)


def _unified_kernel(
    _: BootInputs, chains: Sequence[Chain], banks: Banks, pcr: int
) -> PcrPrediction:
    """Sections, then one more value for each phase that systemd may measure."""
    found = _from_chains(pcr, chains, banks)
    if found.reason is not None:
        return found
    values: list[Value] = []
    for value in found.values:
        events = list(value.events)
        values.append(_value(_joined(value.branch, "as the kernel starts"), events, banks))
        for phase in PHASES:
            events.append(of_data(pcr, f"phase {phase}", phase.encode()))
            values.append(_value(_joined(value.branch, f"after {phase}"), events, banks))
    return PcrPrediction(pcr, tuple(values))


def _ima(found: Mapping[int, PcrPrediction], banks: Banks) -> PcrPrediction:
    """PCR 10 if IMA measures nothing but its first entry, over PCRs 0–9 in its own SHA-256.

    A kernel whose SHA-384 or SHA-512 is a module extends the SHA-1 digest, padded, into such a
    bank: IMA starts before modules can be loaded.
    """
    unknown = [pcr for pcr in range(10) if not found[pcr].values]
    if unknown:
        missing = ", ".join(map(str, unknown))
        return PcrPrediction(10, (), f"IMA's first entry is over PCRs 0–9; unknown: {missing}")
    combinations = list(product(*(found[pcr].values for pcr in range(10))))
    if len(combinations) * len(IMA_TEMPLATES) > MAX_VALUES:
        return PcrPrediction(10, (), "PCRs 0–9 can have too many values together")
    values = [
        _ima_value(combination, template, banks)
        for combination in combinations
        for template in IMA_TEMPLATES
        if all(HashAlg.SHA256 in one.digests for one in combination)
    ]
    if not values:
        return PcrPrediction(10, (), "IMA's first entry is over the SHA-256 bank, which is unknown")
    return PcrPrediction(10, tuple(values))


def _ima_value(combination: Sequence[Value], template: str, banks: Banks) -> Value:
    aggregate = HashAlg.SHA256.digest(b"".join(one.digests[HashAlg.SHA256] for one in combination))
    fields = (b"sha256:\0" + aggregate, b"boot_aggregate\0")
    data = ima.encode_fields(*fields, *([b""] if template == "ima-sig" else []))
    digests = {
        bank: bank.digest(data)
        if bank in {HashAlg.SHA1, HashAlg.SHA256}
        else HashAlg.SHA1.digest(data).ljust(bank.size, b"\0")
        for bank in banks
    }
    event = Measured(10, "IMA's boot_aggregate", digests.__getitem__)
    branch = f"IMA measures nothing but boot_aggregate, template {template}"
    ways = [one.branch for one in combination if one.branch]
    return _value(_joined(*dict.fromkeys(ways[-1:]), branch), [event], banks)


def _from_chains(
    pcr: int,
    chains: Sequence[Chain],
    banks: Banks,
    before: Sequence[Measured] = (),
    after: Sequence[Measured] = (),
    *,
    otherwise: str = "",
) -> PcrPrediction:
    """One value for each way through the boot; ways that measure the same are one."""
    values: list[Value] = []
    reasons: list[str] = []
    for chain in chains:
        reason = chain.unknown.get(pcr)
        if reason is not None:
            reasons.append(reason)
            continue
        own = [one for one in chain.events if one.pcr == pcr]
        events = [*before, *own, *after]
        branch = chain.name if own or not otherwise else _joined(chain.name, otherwise)
        values.append(_value(branch, events, banks))
    return _merged(pcr, values, reasons)


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
    digests = {}
    for bank in banks:
        value = bytes(bank.size)
        for event in events:
            value = bank.digest(value + event.digest(bank))
        digests[bank] = value
    return Value(branch, digests, tuple(events))


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _separator(pcr: int) -> Measured:
    return of_data(pcr, "separator", _SEPARATOR)


def _variable(name: str, data: bytes) -> Measured:
    guid = IMAGE_SECURITY_DATABASE if name.startswith("db") else EFI_GLOBAL_VARIABLE
    return of_data(7, f"variable {name}", VariableData(guid, name, data).encode())


_Predictor = Callable[[BootInputs, Sequence[Chain], Banks, int], PcrPrediction]
_PREDICTORS: dict[int, _Predictor] = {
    0: _captured,
    1: _captured,
    2: _captured,
    3: _captured,
    4: _images,
    5: _disk,
    6: _captured,
    7: _secure_boot,
    8: partial(_nothing, who="no GRUB"),
    9: partial(_nothing, who="no Linux EFI stub"),
    11: _unified_kernel,
    12: partial(_nothing, who=""),
    13: partial(_nothing, who=""),
    14: partial(_nothing, who=""),
    15: partial(_nothing, who="until the system measures itself (machine id, volumes, containers)"),
}
