"""``catena audit tail``: follow a log and verify each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from catena.cli import output
from catena.cli.audit_listing import ListedEntry, listed
from catena.cli.audit_log import LogSource, key_options, log_source
from catena.cli.audit_people import people_option
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.audit.follow import Known
    from catena.keys.signer import PublicKey

_FIELDS = ("kind", "node", "actor", "summary")


class Tailed(msgspec.Struct, frozen=True, kw_only=True):
    """What was new, and how far the log is verified now."""

    origin: str
    size: int
    entries: tuple[ListedEntry, ...]


@click.command(
    cls=output.Verb,
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED, ExitCode.LOG_INCONSISTENT),
    examples=(
        "catena audit tail --log https://catena.example:8443/log --ca ca.crt --token-file token -f",
        "catena audit tail --log ./log --state seen.checkpoint --match kind=verdict --match node=n1",
    ),
)
@log_source
@key_options
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the checkpoint that was verified last; the next call goes on from there.",
)
@click.option(
    "--match",
    "matches",
    multiple=True,
    metavar="FIELD=TEXT",
    help="Only entries whose kind, node or actor is TEXT, or whose summary has it; repeatable.",
)
@click.option(
    "--every", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds, with -f."
)
@people_option
@output.output_option
def tail(
    *,
    names: Mapping[str, str],
    source: LogSource,
    key: PublicKey,
    origin: str | None,
    follow: bool,
    state: Path | None,
    matches: tuple[str, ...],
    every: float,
    as_json: bool,
) -> None:
    """Print what is new in a log, every entry verified.

    With --state, the log has to grow from the checkpoint in that file; a log that was rewound,
    forked or changed ends this with exit code 20. With -f and -o json, a line of JSON for each entry.
    """
    wanted = matcher(matches)
    monitor = _Monitor(source, key, origin, state, names)
    if follow:
        _follow(monitor, wanted, _line if as_json else _row, every)
        return
    entries: list[ListedEntry] = []
    monitor.step(lambda one: entries.append(one) if wanted(one) else None)
    head = monitor.known.checkpoint if monitor.known else None
    result = Tailed(
        origin=head.origin if head else "",
        size=head.size if head else 0,
        entries=tuple(entries),
    )
    output.emit(result, _render, as_json=as_json)


class _Monitor:
    """What is known of a log, in memory and in the state file."""

    def __init__(
        self,
        source: LogSource,
        key: PublicKey,
        origin: str | None,
        state: Path | None,
        names: Mapping[str, str],
    ) -> None:
        from catena.audit.remembered import recall

        self._source, self._key, self._origin, self._state = source, key, origin, state
        self._names = names
        self.known: Known | None = recall(state, key, origin=origin) if state else None

    def step(self, show: Callable[[ListedEntry], object]) -> None:
        """Verify from what is known to the newest checkpoint, then know that."""
        from catena.audit.follow import Following
        from catena.audit.remembered import remember

        with self._source.opened() as log:
            following = Following(log, self.known, self._key, origin=self._origin)
            for one in following:
                show(listed(one, self._names))
        if self._state is not None and following.new != self.known:
            remember(self._state, following.new)
        self.known = following.new


def _follow(
    monitor: _Monitor,
    wanted: Callable[[ListedEntry], bool],
    write: Callable[[ListedEntry], None],
    every: float,
) -> None:
    """Until interrupted. A server that does not answer is waited for; a log that lies is not."""
    from catena.audit.folder import LogMissing
    from catena.audit.reader import LogUnreadable

    failing = ""
    while True:
        try:
            monitor.step(lambda one: write(one) if wanted(one) else None)
            failing = ""
        except (LogUnreadable, LogMissing) as error:
            if monitor.known is None:
                raise  # it never was there
            if str(error) != failing:
                click.echo(f"waiting: {error}", err=True)
            failing = str(error)
        except KeyboardInterrupt:
            return
        try:
            time.sleep(every)
        except KeyboardInterrupt:
            return


def matcher(matches: tuple[str, ...]) -> Callable[[ListedEntry], bool]:
    """Whether all of ``FIELD=TEXT`` hold. Raises ``click.UsageError``."""
    rules = []
    for match in matches:
        field, equals, text = match.partition("=")
        if not equals or field not in _FIELDS:
            raise click.UsageError(f"--match takes FIELD=TEXT, FIELD one of {', '.join(_FIELDS)}.")
        rules.append((field, text))

    def wanted(entry: ListedEntry) -> bool:
        return all(
            text in entry.summary if field == "summary" else getattr(entry, field) == text
            for field, text in rules
        )

    return wanted


def _row(entry: ListedEntry) -> None:
    click.echo(
        f"{entry.index:>8}  {entry.at:%Y-%m-%d %H:%M:%S}Z  {entry.kind:<14}  "
        f"{(entry.node or '-')[:32]:<32}  {entry.summary}"
    )


def _line(entry: ListedEntry) -> None:
    click.echo(msgspec.json.encode(entry).decode())


def _render(result: Tailed) -> None:
    for entry in result.entries:
        _row(entry)
    click.echo(f"verified: {result.origin or 'the log'} up to entry {result.size}")
