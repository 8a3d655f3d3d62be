"""``catena eventlog``: read, explain and compare the logs of measured boots."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from catena.cli import eventlog_text as text
from catena.cli import output
from catena.errors import ExitCode, FormatError, UsageError
from catena.formats import dsse, references
from catena.formats.cel import CelRecord
from catena.formats.ima import ImaEntry
from catena.formats.references import FirmwareCapture, KeySet, ReleaseManifest
from catena.formats.tcglog import EventLog
from catena.ids import HashAlg
from catena.measure import logfile
from catena.measure.difference import Side, compare, side_of_log, side_of_reference
from catena.measure.images import KnownImages, known_images
from catena.measure.listing import list_ima, list_records
from catena.measure.logfile import Replayed
from catena.measure.story import tell

MAX_FILE = 64 * 1024 * 1024

_PREFERRED = (HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512, HashAlg.SM3_256, HashAlg.SHA1)
_EXITS = (ExitCode.NOT_FOUND, ExitCode.MALFORMED)


class LogTooLarge(FormatError):
    """A file that no log of a machine is as large as."""

    code = "log-too-large"
    remedy = "Give the log of one boot."


class NotAFirmwareLog(FormatError):
    """A log of another kind than the command reads."""

    code = "not-a-firmware-log"
    remedy = "`catena eventlog show` and `replay` read logs of every kind, without --bank."


class NoSuchBank(UsageError):
    """A bank that the log has no digests of."""

    code = "no-such-bank"
    remedy = "Leave --bank out, or name one of the log's banks."


_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
_file_argument = click.argument("file", type=_FILE)
_bank_option = click.option(
    "--bank",
    type=click.Choice([bank.value for bank in HashAlg]),
    help="Read the digests of this bank (default: sha256 if the log has it).",
)


class ReplayView(msgspec.Struct, frozen=True, kw_only=True):
    """A replayed log as ``-o json`` prints it; digests are lower-case hex."""

    format: str
    banks: tuple[str, ...]
    startup_locality: int | None
    events: int
    pcrs: dict[str, dict[str, str]]
    opaque_events: int


@click.group(cls=output.Noun, name="eventlog")
def noun() -> None:
    """Read, explain and compare the logs of measured boots. FILE may be - for standard input."""


@noun.command(
    exits=_EXITS,
    examples=(
        "catena eventlog replay /sys/kernel/security/tpm0/binary_bios_measurements",
        "catena eventlog replay - -o json < log",
    ),
)
@_file_argument
@output.output_option
def replay(*, file: Path, as_json: bool) -> None:
    """Say what PCRs would hold if FILE were the whole truth, in every bank.

    FILE is a firmware log, an IMA log or a canonical event log (systemd's tpm2-measure.log).
    """
    output.emit(_view(logfile.replay_all(read_log(file))), _render, as_json=as_json)


@noun.command(
    exits=_EXITS,
    examples=(
        "catena eventlog show /sys/kernel/security/tpm0/binary_bios_measurements",
        "catena eventlog show boot.log --bank sha384 -o json",
    ),
)
@_file_argument
@_bank_option
@output.output_option
def show(*, file: Path, bank: str | None, as_json: bool) -> None:
    """Tell the boot that the firmware log FILE describes: keys, what ran, with which words.

    Every statement is bound to a digest of the log, unless it is marked untrusted. Reading is not
    judging: a log with problems is told, too, and the exit code is 0. IMA's logs and canonical
    event logs are listed entry by entry.
    """
    kind, log = logfile.parse(read_log(file))
    if isinstance(log, EventLog):
        output.emit(tell(log, chosen_bank(log, bank)), text.render_story, as_json=as_json)
        return
    if bank is not None:
        raise NotAFirmwareLog("only firmware logs are read bank by bank", got=kind)
    records = tuple(one for one in log if isinstance(one, CelRecord))
    entries = (one for one in log if isinstance(one, ImaEntry))
    listing = list_records(records) if kind == "cel" else list_ima(entries)
    output.emit(listing, text.render_listing, as_json=as_json)


@noun.command(
    exits=_EXITS,
    examples=("catena eventlog explain /sys/kernel/security/tpm0/binary_bios_measurements",),
)
@_file_argument
@_bank_option
@output.output_option
def explain(*, file: Path, bank: str | None, as_json: bool) -> None:
    """List the firmware log FILE event by event: what each measured, and how much is proven."""
    log = read_firmware_log(file)
    output.emit(text.event_views(log, chosen_bank(log, bank)), text.render_events, as_json=as_json)


@noun.command(
    exits=_EXITS,
    examples=(
        "catena eventlog diff yesterday.log today.log",
        "catena eventlog diff release-1/release.dsse.json boot.log --image uki.efi",
    ),
)
@click.argument("before", metavar="A", type=_FILE)
@click.argument("after", metavar="B", type=_FILE)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="PE file, or folder of them, that one side measured: its sections are compared.",
)
@_bank_option
@output.output_option
def diff(
    *, before: Path, after: Path, images: tuple[Path, ...], bank: str | None, as_json: bool
) -> None:
    """Say what changed from A to B: key, certificate, image, section, word of a command line.

    A and B are firmware logs, or signed references (release.dsse.json, keyset.dsse.json), whose
    signature is not verified here. Images are believed as far as their digests were measured.
    """
    inputs = [_input(before), _input(after)]
    chosen = _common_bank(inputs, bank)
    known = known_images(_image_files(images), chosen)
    first, second = (one.side(chosen, known) for one in inputs)
    output.emit(compare(first, second, chosen), text.render_difference, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Input:
    """One side of a comparison: a log, or a reference document."""

    name: str
    content: EventLog | ReleaseManifest | KeySet | FirmwareCapture

    @property
    def banks(self) -> tuple[HashAlg, ...]:
        """The banks that it speaks of."""
        if isinstance(self.content, EventLog):
            return self.content.banks
        return tuple(bank for bank in HashAlg if bank.value in self.content.pcrs)

    def side(self, bank: HashAlg, images: KnownImages) -> Side:
        """Its measurements in one bank."""
        content = self.content
        if isinstance(content, EventLog):
            return side_of_log(self.name, content, bank, images)
        line = content.command_line if isinstance(content, ReleaseManifest) else None
        return side_of_reference(
            self.name, content.events, content.pcrs, bank, command_line=line, images=images
        )


def _input(file: Path) -> _Input:
    """A log, or the document in an envelope, whichever FILE is."""
    content = read_log(file)
    if not content.lstrip().startswith(b"{"):
        kind, log = logfile.parse(content)
        if not isinstance(log, EventLog):
            raise NotAFirmwareLog("this command compares firmware logs", got=kind)
        return _Input(file.name, log)
    statement = dsse.parse_statement(dsse.parse(content).payload)
    form = references.FORMS.get(statement.predicate_type)
    if form is None:
        raise FormatError("not a reference document", got=ascii(statement.predicate_type[:80]))
    return _Input(file.name, references.parse_predicate(statement.predicate, form))


def _common_bank(inputs: Sequence[_Input], name: str | None) -> HashAlg:
    wanted = _PREFERRED if name is None else (HashAlg(name),)
    for bank in wanted:
        if all(bank in one.banks for one in inputs):
            return bank
    raise NoSuchBank("the two have no bank in common", got=name or "none")


def _image_files(places: Sequence[Path]) -> Iterator[bytes]:
    for place in places:
        files = sorted(place.glob("*.efi*")) if place.is_dir() else [place]
        for file in files:
            yield read_log(file)


def read_firmware_log(file: Path) -> EventLog:
    """A firmware log. Raises ``FormatError``, ``NotAFirmwareLog`` for a log of another kind."""
    kind, log = logfile.parse(read_log(file))
    if not isinstance(log, EventLog):
        raise NotAFirmwareLog("this command reads firmware logs", got=kind)
    return log


def chosen_bank(log: EventLog, name: str | None) -> HashAlg:
    """The bank that was asked for, or the strongest that is in wide use. Raises ``NoSuchBank``."""
    wanted = _PREFERRED if name is None else (HashAlg(name),)
    for bank in wanted:
        if bank in log.banks:
            return bank
    raise NoSuchBank(
        "the log does not have this bank",
        expected=", ".join(log.banks) or "a log with a known bank",
        got=name or "none",
    )


def read_log(file: Path) -> bytes:
    """The content of a log file, or of standard input. Raises ``LogTooLarge``."""
    if str(file) == "-":
        return _read(sys.stdin.buffer)
    with file.open("rb") as source:
        return _read(source)


def _read(source: BinaryIO) -> bytes:
    content = source.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise LogTooLarge("the log is too large", expected=f"at most {MAX_FILE} bytes")
    return content


def _view(replayed: Replayed) -> ReplayView:
    return ReplayView(
        format=replayed.format,
        banks=tuple(bank.value for bank in replayed.banks),
        startup_locality=replayed.startup_locality,
        events=replayed.events,
        pcrs={
            bank.value: {str(pcr): value.hex() for pcr, value in values.items()}
            for bank, values in replayed.pcrs.items()
        },
        opaque_events=replayed.opaque_events,
    )


def _render(view: ReplayView) -> None:
    locality = view.startup_locality
    click.echo(f"format            {view.format}")
    click.echo(f"events            {view.events}, {view.opaque_events} of them opaque")
    click.echo(f"startup locality  {'not told' if locality is None else locality}")
    place = "register" if view.format == "ccel" else "PCR"
    for bank, values in view.pcrs.items():
        click.echo(f"\n{bank}")
        for pcr, value in values.items():
            click.echo(f"  {place} {pcr:>2}  {value}")
