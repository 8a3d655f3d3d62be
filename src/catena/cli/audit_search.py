"""``catena audit search``: who ever booted, ran, held, was trusted, failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from catena.cli import output
from catena.cli.audit_log import LogSource, key_options, log_argument
from catena.cli.connection import printable
from catena.errors import ExitCode

if TYPE_CHECKING:
    from catena.audit.facts import Fact
    from catena.audit.search import Hit, NodeHits, Query, SearchResult
    from catena.keys.signer import PublicKey

SHORT_ID = 12


class Instant(click.ParamType[datetime]):
    """A moment in RFC 3339; a date alone is its first moment, and without an offset it is UTC."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """``2026-03-01T12:00:00Z``."""
        if isinstance(value, datetime):
            return value
        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time such as 2026-03-01T12:00:00Z", param, ctx)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


INSTANT = Instant()


@click.command(
    cls=output.Verb,
    exits=(ExitCode.NOT_FOUND, ExitCode.MALFORMED, ExitCode.LOG_INCONSISTENT),
    examples=(
        "catena audit search ./log --key log.pub --release edge-4",
        "catena audit search ./log --key log.pub --failed --node web-1 --since 2026-03-01",
        "catena audit search ./log --key log.pub --trusted-at 2026-03-01T12:00:00Z -o json",
        "catena audit search https://catena.example:8443/log --key log.pub --index ./index --secret db",
    ),
)
@log_argument("LOG")
@key_options
@click.option("--release", help="Nodes that booted this release, such as edge-4.")
@click.option("--image", help="Nodes that ran this image, by digest.")
@click.option("--secret", help="Nodes that this secret was released to.")
@click.option("--trusted-at", type=INSTANT, help="Nodes that were trusted at this time.")
@click.option("--failed", is_flag=True, help="Untrusted verdicts and denials, with their codes.")
@click.option("--code", "codes", multiple=True, help="Failures with this code (repeatable).")
@click.option("--node", help="Only this node: a name, or the first digits of its id.")
@click.option("--since", type=INSTANT, help="Only entries of this time or later.")
@click.option("--until", type=INSTANT, help="Only entries of this time or earlier.")
@click.option(
    "--lifetime",
    type=click.IntRange(1, 86400 * 365),
    default=600,
    show_default=True,
    help="Seconds that a trusted verdict lasts: the server's certificate_lifetime.",
)
@click.option(
    "--index",
    "index_path",
    type=click.Path(path_type=Path),
    help="The index [FOLDER.index; a log behind a URL needs one].",
)
@click.option("--rebuild", is_flag=True, help="Make the index anew, from the log alone.")
@click.option("--entries", "list_entries", is_flag=True, help="List every hit, not only the nodes.")
@output.output_option
def search(
    *,
    source: LogSource,
    key: PublicKey,
    origin: str | None,
    index_path: Path | None,
    rebuild: bool,
    list_entries: bool,
    as_json: bool,
    **question: object,
) -> None:
    """Search the LOG in a folder or behind a URL (a lab's own, if left out), with a local index over it.

    The index is made, and grows, of verified entries only. Each hit is read from the log and verified
    again. Ask one question; without any, all entries that the filters let through are found.
    """
    from catena.audit.search import default_index
    from catena.audit.search import search as search_log

    if index_path is None:
        if source.is_url:
            raise click.UsageError("A log behind a URL needs --index.")
        index_path = default_index(source.folder)
    query = _query(**question)  # type: ignore[arg-type] # click gives each option its type
    with source.opened() as log:
        result = search_log(log, key, query, index=index_path, origin=origin, rebuild=rebuild)
    output.emit(result, lambda found: _render(found, list_entries), as_json=as_json)


def _query(
    *,
    release: str | None,
    image: str | None,
    secret: str | None,
    trusted_at: datetime | None,
    failed: bool,
    codes: tuple[str, ...],
    node: str | None,
    since: datetime | None,
    until: datetime | None,
    lifetime: int,
) -> Query:
    from catena.audit.search import Query

    image = image if image is None or ":" in image or "-" in image else f"sha256:{image}"
    asked: list[tuple[Fact, tuple[str, ...]]] = [
        *([] if release is None else [("release", (release,))]),  # type: ignore[list-item]
        *([] if image is None else [("image", (image,))]),  # type: ignore[list-item]
        *([] if secret is None else [("secret", (secret,))]),  # type: ignore[list-item]
        *([("failed", codes)] if failed or codes else []),  # type: ignore[list-item]
    ]
    if len(asked) + (trusted_at is not None) > 1:
        raise click.UsageError("Ask one of --release, --image, --secret, --trusted-at, --failed.")
    what, values = asked[0] if asked else (None, ())
    return Query(
        what=what,
        values=values,
        at=trusted_at,
        lifetime=timedelta(seconds=lifetime),
        node=node,
        since=since,
        until=until,
    )


def _render(result: SearchResult, list_entries: bool) -> None:
    if list_entries and result.hits:
        output.table(("entry", "at", "kind", "node", "summary"), map(_hit_row, result.hits))
        click.echo()
    if result.nodes:
        output.table(
            ("node", "hits", "first", "entry", "last", "entry", "found"),
            map(_node_row, result.nodes),
        )
    nodes = sum(one.node is not None for one in result.nodes)
    click.echo(
        f"{len(result.hits)} entries about {nodes} nodes, in {result.size} entries of {result.origin}"
    )
    click.echo(f"index {result.index}")


def _hit_row(hit: Hit) -> tuple[str, ...]:
    return (
        str(hit.index),
        _time(hit.at),
        hit.kind,
        printable((hit.name or hit.node or "-")[:32]),
        printable(hit.summary),
    )


def _node_row(one: NodeHits) -> tuple[str, ...]:
    return (
        printable(one.name or (one.node or "-")[:SHORT_ID]),
        str(one.count),
        _time(one.first_at),
        str(one.first),
        _time(one.last_at),
        str(one.last),
        printable(", ".join(one.found)),
    )


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"
