"""The logs behind a quote: present, unaltered, readable (TRUST, attestation step 5f, first half).

The manifest is bound to the quote (step c), so a fault here is the node's own: it signed a
manifest of logs that are not what they should be. Log *contents* stay untrusted until
``replayed`` has tied them to the quoted PCRs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from catena.appraise.refusal import AttestationRefusal
from catena.errors import FormatError
from catena.evidence import LogEntry, LogKind
from catena.formats import ima, tcglog
from catena.formats.ima import ImaEntry
from catena.formats.tcglog import EventLog
from catena.ids import HashAlg
from catena.measure.replay import IMA_PCR


class MissingBootLog(AttestationRefusal):
    """A manifest without a firmware log: nothing explains the boot."""

    code = "boot-log-missing"
    remedy = "The kernel must expose binary_bios_measurements; check that firmware logs events."
    step = "f"


class RepeatedLog(AttestationRefusal):
    """Two logs of one kind: it would be open which of them counts."""

    code = "log-repeated"
    step = "f"


class MissingLog(AttestationRefusal):
    """A log that the manifest names was neither sent nor known."""

    code = "log-missing"
    remedy = "Send the log's content with the evidence."
    step = "f"


class AlteredLog(AttestationRefusal):
    """A log whose content is not the one that the manifest names."""

    code = "log-altered"
    step = "f"


class UnreadableLog(AttestationRefusal):
    """A log that does not follow its format; the message has the offset."""

    code = "log-unreadable"
    step = "f"


class ForeignLogFormat(AttestationRefusal):
    """A log that is not of this TPM: a CCEL of a confidential VM, or a TPM 1.2 log."""

    code = "log-foreign-format"
    step = "f"


class UnloggedBank(AttestationRefusal):
    """The firmware log has no digests for the bank that was quoted."""

    code = "bank-unlogged"
    remedy = "Quote a bank that the firmware logs."
    step = "f"


class MisplacedImaEntry(AttestationRefusal):
    """An IMA entry for another PCR than 10, which no IMA of these releases makes."""

    code = "ima-entry-misplaced"
    step = "f"


class MisplacedLog(AttestationRefusal):
    """A log other than a container record that is said to explain an NV index."""

    code = "log-misplaced"
    remedy = "Only container records can be held by NV indices; update the agent."
    step = "f"


@dataclass(frozen=True, slots=True)
class Logs:
    """The logs of one attestation; ``has_ima`` even if that log is empty.

    IMA's may be long and is proven only up to a place that the quote decides, so it stays bytes:
    ``ima_entries`` whole ones, each for PCR 10. ``read_entries`` reads those that are proven. So
    does the container ``record``, of which nothing is looked at here; None without such a log.
    ``indexed`` has those that NV indices hold.
    """

    boot: EventLog
    boot_entry: LogEntry
    ima: bytes
    ima_entries: int
    has_ima: bool
    record: bytes | None = None
    indexed: Mapping[int, bytes] = field(default_factory=dict)


def read_logs(
    manifest: tuple[LogEntry, ...],
    contents: Mapping[str, bytes],
    bank: HashAlg,
    boot: EventLog | None = None,
) -> Logs:
    """Step 5f: every log of the manifest, as it was when the node signed its digest.

    ``contents`` maps SHA-256 to content and may hold more than the manifest names. ``boot`` is
    the firmware log if it was read before, under this digest; its content may then be absent.
    """
    entries = _by_kind(manifest)
    if "tcg2" not in entries:
        raise MissingBootLog("the evidence names no firmware log")
    entry = entries["tcg2"]
    if boot is None:
        boot = _boot_log(_content(entry, contents), bank)
    else:
        check_contents((entry,), contents)
    has_ima = "ima" in entries
    ima_log = _content(entries["ima"], contents) if has_ima else b""
    has_record = "containers" in entries
    record = _content(entries["containers"], contents) if has_record else None
    indexed = {index: _content(entry, contents) for index, entry in _by_index(manifest).items()}
    return Logs(boot, entry, ima_log, _count_entries(ima_log), has_ima, record, indexed)


def read_entries(content: bytes, start: int = 0, index: int = 0) -> tuple[ImaEntry, ...]:
    """The entries of IMA's log from ``start`` on, which is where number ``index`` starts."""
    try:
        return tuple(ima.entries(content, start, index))
    except FormatError as error:
        raise UnreadableLog(f"the IMA log is malformed: {error}") from error


def check_contents(manifest: tuple[LogEntry, ...], contents: Mapping[str, bytes]) -> None:
    """Step 5f for logs that were read before: what is there again must still be what it was."""
    for entry in manifest:
        if entry.sha256 in contents:
            _content(entry, contents)


def _by_kind(manifest: tuple[LogEntry, ...]) -> dict[LogKind, LogEntry]:
    plain = [entry for entry in manifest if entry.nv_index is None]
    entries = {entry.kind: entry for entry in plain}
    if len(entries) != len(plain):
        raise RepeatedLog("the evidence names two logs of one kind")
    return entries


def _by_index(manifest: tuple[LogEntry, ...]) -> dict[int, LogEntry]:
    entries: dict[int, LogEntry] = {}
    for entry in manifest:
        if entry.nv_index is None:
            continue
        if entry.kind != "containers":
            raise MisplacedLog("no NV index holds such a log", got=entry.kind)
        if entry.nv_index in entries:
            raise RepeatedLog("the evidence names two records of one NV index")
        entries[entry.nv_index] = entry
    return entries


def _content(entry: LogEntry, contents: Mapping[str, bytes]) -> bytes:
    content = contents.get(entry.sha256)
    if content is None:
        raise MissingLog(f"the content of the {entry.kind} log is missing", got=entry.sha256)
    if len(content) != entry.size or hashlib.sha256(content).hexdigest() != entry.sha256:
        raise AlteredLog(f"the {entry.kind} log is not the one that was quoted")
    return content


def _boot_log(content: bytes, bank: HashAlg) -> EventLog:
    try:
        log = tcglog.parse(content)
    except FormatError as error:
        raise UnreadableLog(f"the firmware log is malformed: {error}") from error
    if log.format != "tcg2":
        raise ForeignLogFormat(
            "the firmware log is of another kind", expected="tcg2", got=log.format
        )
    if bank not in log.banks:
        raise UnloggedBank("the firmware log does not cover the quoted bank", got=bank)
    return log


def _count_entries(content: bytes) -> int:
    """How many entries IMA's log has. Their fields are not looked at."""
    count = 0
    try:
        for pcr, _, _ in ima.measurements(content):
            count += 1
            if pcr != IMA_PCR:
                raise MisplacedImaEntry(
                    "an IMA entry is for another PCR", expected=f"{IMA_PCR}", got=f"{pcr}"
                )
            if count > ima.MAX_ENTRIES:
                raise UnreadableLog(
                    "the IMA log has too many entries", expected=f"at most {ima.MAX_ENTRIES}"
                )
    except FormatError as error:
        raise UnreadableLog(f"the IMA log is malformed: {error}") from error
    return count
