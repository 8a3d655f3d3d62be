"""``catena``: finds the noun, runs the verb, and turns every error into one exit code.

Nouns are imported only when they are used, so that ``catena --help`` stays fast and a node
needs none of the server's libraries.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from catena import __version__
from catena.cli import output
from catena.errors import CatenaError, ExitCode

NOUNS = {
    "keys": "make enterprise keys and put them into firmware",
    "os": "build, sign and verify operating system releases",
    "reference": "say what machines may measure",
    "server": "run the trust service",
    "node": "see, explain and admit machines",
    "secret": "keep secrets for machines that prove themselves",
    "agent": "prove this machine and receive its identity",
    "audit": "verify the log of every decision",
    "lab": "boot real virtual machines and attack them",
    "doctor": "check this machine, with a remedy for all that is missing",
}


class Catena(click.Group):
    """The root command; its nouns live in modules of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All nouns, in the order of a machine's life."""
        del ctx
        return list(NOUNS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the noun's module and take its ``noun``."""
        del ctx
        if cmd_name not in NOUNS:
            return None
        command: click.Command = importlib.import_module(f"catena.cli.{cmd_name}").noun
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List nouns without importing them."""
        del ctx
        with formatter.section("Nouns"):
            formatter.write_dl(list(NOUNS.items()))


@click.group(cls=Catena, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="catena")
def catena() -> None:
    """A chain of trust from firmware keys to every container and cluster.

    Exit codes: 0 trusted or done, 1 internal error, 2 usage, 3 not found, 10 untrusted,
    11 stale, 12 unknown node, 13 policy error, 14 malformed input, 20 log inconsistent.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``catena`` command; never returns."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(words))


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    as_json = output.wants_json(words)
    try:
        result = catena.main(list(words), prog_name="catena", standalone_mode=False)
    except CatenaError as error:
        output.report(error, as_json=as_json)
        return error.exit_code
    except click.ClickException as error:
        output.report_usage(error, as_json=as_json)
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return 128 + 2
    except BrokenPipeError:
        # The reader of a pipe went away (`catena … | head`): not an error of ours.
        sys.stderr.close()
        return ExitCode.OK
    return result if isinstance(result, int) else ExitCode.OK


if __name__ == "__main__":
    main()
