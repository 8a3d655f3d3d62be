"""``catena audit witness``: cosign other sites' logs, so that none can show two histories."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from catena.cli import output
from catena.cli.audit_log import key_option
from catena.cli.connection import Connection, connection_options, printable
from catena.errors import ExitCode, NotFound

if TYPE_CHECKING:
    from catena.audit.cosigned import Cosigned
    from catena.audit.reader import LogReader
    from catena.audit.verify import LogSummary
    from catena.keys.signer import PublicKey
    from catena.service.views import CosigningReport

F = TypeVar("F", bound=Callable[..., Any])

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_COSIGNED = "checkpoint.cosigned"
_DEFAULT_LISTEN = "127.0.0.1:8460"


class WitnessView(msgspec.Struct, frozen=True, kw_only=True):
    """A witness as its operator tells others about it; ``logs`` are the origins it watches."""

    folder: str
    name: str
    listen: str
    key: str
    logs: tuple[str, ...]


class CosignedMissing(NotFound):
    """A log that was to be cosigned, without a cosigned checkpoint beside it."""

    code = "cosigned-missing"
    remedy = "Get `/log/checkpoint.cosigned` from the server and give it with --cosigned."


class LogKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A log's key as a witness's settings name it."""

    origin: str
    key: str


class CosignedView(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a log a quorum has cosigned; ``witnesses`` by name with the times they signed."""

    size: int
    witnesses: dict[str, datetime]


def witness_options(verb: F) -> F:
    """Add ``--witness``, ``--quorum`` and ``--cosigned`` to a verb that verifies a log."""
    options = (
        click.option(
            "--witness",
            "witnesses",
            multiple=True,
            metavar="KEY",
            help="A witness that counts, as `catena audit witness init` printed it; repeatable.",
        ),
        click.option(
            "--quorum",
            type=click.IntRange(min=1),
            help="How many of them must have cosigned. [default: all]",
        ),
        click.option(
            "--cosigned",
            "cosigned_path",
            type=_FILE,
            help="The cosigned checkpoint. [default: checkpoint.cosigned beside FOLDER]",
        ),
    )
    for option in reversed(options):
        verb = option(verb)
    return verb


def read_cosigned(
    log: LogReader,
    beside: Path | None,
    key: PublicKey,
    origin: str | None,
    *,
    witnesses: tuple[str, ...],
    quorum: int | None,
    cosigned_path: Path | None,
) -> Cosigned | None:
    """The cosigned checkpoint with its quorum verified; None if no witness is demanded.

    It lies where ``cosigned_path`` says, in the folder ``beside`` the log's, or among the files that the
    log's server gives. To be read before the log, which may grow meanwhile. Raises ``CosignedMissing`` and
    what ``audit.cosigned`` refuses.
    """
    import time

    from catena.audit import cosigned
    from catena.audit.folder import MAX_CHECKPOINT, LogFolder

    if not witnesses:
        if quorum is not None or cosigned_path is not None:
            raise click.UsageError("--quorum and --cosigned need --witness.")
        return None
    demanded = cosigned.policy(witnesses, len(witnesses) if quorum is None else quorum)
    path = cosigned_path or (Path(_COSIGNED) if beside is None else beside / _COSIGNED)
    place = log if cosigned_path is None and beside is None else LogFolder(path.parent)
    content = place.read(path.name, MAX_CHECKPOINT)
    if content is None:
        raise CosignedMissing("there is no cosigned checkpoint", got=str(path))
    return cosigned.verify_cosigned(content, key, demanded, origin=origin, now=int(time.time()))


def require_cosigned(log: LogReader, found: Cosigned, summary: LogSummary) -> CosignedView:
    """Check that a verified log contains a cosigned checkpoint.

    Raises ``ForeignOrigin`` and ``CheckpointNotContained``.
    """
    from catena.audit.checkpoint import ForeignOrigin
    from catena.audit.growth import require_contained

    checkpoint = found.checkpoint
    if checkpoint.origin != summary.origin:
        raise ForeignOrigin("the cosigned checkpoint is of another log", expected=summary.origin)
    require_contained(log, checkpoint, summary.size)
    return CosignedView(
        size=checkpoint.size,
        witnesses={one.name: datetime.fromtimestamp(one.time, UTC) for one in found.cosigners},
    )


def render_cosigned(view: CosignedView) -> None:
    """The lines of ``audit verify`` about witnesses."""
    click.echo(f"cosigned {view.size}")
    for name, at in view.witnesses.items():
        click.echo(f"         {at:%Y-%m-%d %H:%M:%S}Z by {printable(name)}")


@click.group(cls=output.Noun, name="witness")
def witness_noun() -> None:
    """Cosign logs: make a witness, run it, name keys to each other."""


@witness_noun.command(
    exits=(ExitCode.USAGE,),
    examples=("catena audit witness init ./witness --name witness.example.org/w1 --log LOGKEY",),
)
@click.argument("folder", type=_FOLDER)
@click.option("--name", required=True, help="The cosigner's name, such as witness.example.org/w1.")
@click.option("--listen", default=_DEFAULT_LISTEN, show_default=True, metavar="HOST:PORT")
@click.option(
    "--log",
    "logs",
    multiple=True,
    metavar="KEY",
    help="A log to watch, as `catena audit witness log-key` prints it; repeatable.",
)
@output.output_option
def init(*, folder: Path, name: str, listen: str, logs: tuple[str, ...], as_json: bool) -> None:
    """Make a witness's FOLDER: its key, its settings, an empty memory.

    Prints the key that logs and readers are given.
    """
    from catena.server import witness_folder

    witness_folder.init(folder, name, listen, logs)
    output.emit(_view(folder), _render, as_json=as_json)


@witness_noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.USAGE, ExitCode.UNTRUSTED, ExitCode.MALFORMED),
    examples=("catena audit witness run ./witness",),
)
@click.argument("folder", type=_FOLDER)
@click.option("--listen", metavar="HOST:PORT", help="Instead of the address in witness.toml.")
def run(folder: Path, listen: str | None) -> None:
    """Run the witness of FOLDER until SIGTERM or SIGINT.

    One JSON line per request goes to standard error; so does every fork it is shown.
    """
    import time

    from catena.server import run as running
    from catena.server import witness_run
    from catena.server.witness_folder import open_witness

    opened = open_witness(folder, now=lambda: int(time.time()))
    try:
        with running.listen(listen or opened.config.listen) as door:
            witness_run.serve(opened, door, _announce)
    finally:
        opened.close()


@witness_noun.command(
    exits=(ExitCode.NOT_FOUND, ExitCode.USAGE, ExitCode.UNTRUSTED, ExitCode.MALFORMED),
    examples=("catena audit witness show ./witness",),
)
@click.argument("folder", type=_FOLDER)
@output.output_option
def show(folder: Path, *, as_json: bool) -> None:
    """Show a witness's key and the logs it watches, also while it runs."""
    output.emit(_view(folder), _render, as_json=as_json)


@witness_noun.command(
    exits=(ExitCode.USAGE, ExitCode.NOT_FOUND, ExitCode.UNTRUSTED),
    examples=("catena audit witness status",),
)
@connection_options
@output.output_option
def status(*, connection: Connection, as_json: bool) -> None:
    """Show how far a server's log is cosigned, and which witness is missing, and why."""
    with connection.open() as client:
        report = client.witnesses()
    output.emit(report, _render_report, as_json=as_json)


@witness_noun.command(
    name="log-key",
    exits=(ExitCode.NOT_FOUND, ExitCode.USAGE, ExitCode.MALFORMED),
    examples=("catena audit witness log-key --key log.pub --origin catena.local/log",),
)
@key_option
@click.option("--origin", required=True, help="The log's origin: `log_origin` in server.toml.")
@output.output_option
def log_key(*, key: PublicKey, origin: str, as_json: bool) -> None:
    """Print a log's key in the form that a witness's settings take."""
    from catena.audit.checkpoint import verifier_key

    view = LogKeyView(origin=origin, key=verifier_key(origin, key).encode())
    output.emit(view, lambda found: click.echo(found.key), as_json=as_json)


def _view(folder: Path) -> WitnessView:
    from catena.server import witness_folder

    config = witness_folder.load(folder)
    return WitnessView(
        folder=str(folder),
        name=config.name,
        listen=config.listen,
        key=witness_folder.key_of(folder).encode(),
        logs=tuple(witness_folder.watched(config)),
    )


def _render(view: WitnessView) -> None:
    click.echo(f"folder   {view.folder}")
    click.echo(f"name     {view.name}")
    click.echo(f"listen   {view.listen}")
    click.echo(f"key      {view.key}")
    for origin in view.logs:
        click.echo(f"watches  {printable(origin)}")


def _render_report(report: CosigningReport) -> None:
    output.table(
        ("witness", "entries", "problem"),
        (
            (printable(one.name), str(one.size), printable(one.problem or "-"))
            for one in report.witnesses
        ),
    )
    click.echo()
    click.echo(f"log      {report.log_size} entries")
    if report.cosigned_size is None or report.cosigned_at is None:
        click.echo(f"cosigned none yet: a quorum is {report.quorum} of {len(report.witnesses)}")
    else:
        click.echo(
            f"cosigned {report.cosigned_size} by {report.quorum} of {len(report.witnesses)} "
            f"since {report.cosigned_at}"
        )


def _announce(url: str) -> None:
    click.echo(f"catena witness at {url}")
