"""What the command prints: one struct, two renderers; one error shape.

With ``-o json`` standard output holds exactly one JSON document, errors included
(``{"error": {...}}``). Without it, results go to standard output and errors to standard error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from catena.errors import CatenaError, ExitCode

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_EXIT_MEANING = {
    ExitCode.OK: "done",
    ExitCode.INTERNAL: "internal error, or something needed is missing",
    ExitCode.USAGE: "wrong usage",
    ExitCode.NOT_FOUND: "not found",
    ExitCode.UNTRUSTED: "untrusted",
    ExitCode.STALE: "stale",
    ExitCode.UNKNOWN_NODE: "unknown node",
    ExitCode.POLICY: "policy error",
    ExitCode.MALFORMED: "malformed input",
    ExitCode.LOG_INCONSISTENT: "log inconsistent",
}


HELP_OPTIONS = ["-h", "--help"]


class Verb(click.Command):
    """A command whose help ends with its exit codes and examples."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - passed through to click as they are
        exits: Sequence[ExitCode] = (),
        examples: Sequence[str] = (),
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> None:
        # A verb can be called without the nouns above it, whose settings it would inherit.
        kwargs.setdefault("context_settings", {"help_option_names": HELP_OPTIONS})
        super().__init__(*args, **kwargs)
        self.exits = tuple(
            sorted({ExitCode.OK, ExitCode.INTERNAL, ExitCode.USAGE, *exits}, key=int)
        )
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Exit codes, then examples."""
        del ctx
        write_epilog(formatter, self.exits, self.examples)


class Noun(click.Group):
    """A group whose verbs are ``Verb`` by default; its help ends with what its verbs have."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on as they are
        kwargs.setdefault("context_settings", {"help_option_names": HELP_OPTIONS})
        super().__init__(*args, **kwargs)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Exit codes of all verbs, then the first example of each."""
        del ctx
        verbs = [verb for verb in self.commands.values() if isinstance(verb, Verb)]
        exits = sorted({code for verb in verbs for code in verb.exits}, key=int)
        write_epilog(formatter, exits, [verb.examples[0] for verb in verbs if verb.examples])


def write_epilog(
    formatter: click.HelpFormatter, exits: Sequence[ExitCode], examples: Sequence[str]
) -> None:
    """The end of a help text: exit codes, then examples."""
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(int(code)), _EXIT_MEANING[code]) for code in exits])
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write_text(example)


def output_option(function: F) -> F:
    """Add ``-o table|json``; the verb receives ``as_json: bool``."""

    def to_flag(ctx: click.Context, param: click.Parameter, value: str) -> bool:
        del ctx, param
        return value == "json"

    return click.option(
        "-o",
        "--output",
        "as_json",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        callback=to_flag,
        help="Print a table for people or one JSON document.",
    )(function)


def emit(value: T, render: Callable[[T], None], *, as_json: bool) -> None:
    """Print ``value`` (a struct, dataclass or list of them) as JSON or with ``render``."""
    if as_json:
        _print_json(value)
    else:
        render(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain aligned table; rich is loaded only here."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        # Text, not markup: what a node sent is never interpreted.
        grid.add_row(*(Text(cell) for cell in row))
    Console(soft_wrap=not sys.stdout.isatty()).print(grid)


def wants_json(words: Sequence[str]) -> bool:
    """Whether ``-o json`` is on this command line, known before it is parsed."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    return any(
        word in {"-ojson", "-o=json", "--output=json"}
        or (word in {"-o", "--output"} and following == "json")
        for word, following in pairs
    )


def report(error: CatenaError, *, as_json: bool) -> None:
    """Print an error as HOUSE asks: what happened, expected, got, remedy."""
    if as_json:
        with contextlib.suppress(OSError):
            _print_json({"error": error.as_dict()})
            return
        # Standard output itself is broken: the error goes where it can still be seen.
    click.echo(f"error: {error} [{error.code}]", err=True)
    if error.remedy:
        click.echo(f"remedy: {error.remedy}", err=True)


def report_usage(error: click.ClickException, *, as_json: bool) -> None:
    """Print click's own complaint in the same two shapes."""
    if as_json:
        remedy = "Run the command with --help."
        document = {"code": "usage", "message": error.format_message(), "remedy": remedy}
        _print_json({"error": document})
        return
    error.show()


def _print_json(value: object) -> None:
    encoded = msgspec.json.encode(value, enc_hook=_encode_other)
    click.echo(msgspec.json.format(encoded, indent=2).decode())


def _encode_other(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"cannot print a {type(value).__name__} as JSON")
