"""``catena``: finds the noun, runs the verb, and turns every error into one exit code.

Nouns are imported only when they are used, so that ``catena --help`` stays fast and a node
needs none of the server's libraries.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence

import click

from catena import __version__
from catena.cli import output
from catena.errors import CatenaError, ExitCode, NotFound, Unavailable

NOUNS = {
    "keys": "make enterprise keys and put them into firmware",
    "os": "build, sign and verify operating system releases",
    "eventlog": "read, explain and compare the logs of measured boots",
    "reference": "say what machines may measure",
    "endorsement": "say who may vouch for a TPM",
    "policy": "say what a boot must show before it is trusted",
    "server": "run the trust service",
    "node": "see, explain and admit machines",
    "container": "sign, verify and fetch images, and say whose may run",
    "secret": "keep secrets for machines that prove themselves",
    "token": "say who may call the trust service, and for what",
    "login": "become known to the trust service through an OpenID provider",
    "agent": "prove this machine and receive its identity",
    "audit": "verify the log of every decision",
    "lab": "boot real virtual machines and attack them",
    "doctor": "check this machine, with a remedy for all that is missing",
}

DEBUG = "CATENA_DEBUG"
"""Environment variable: not empty, and a traceback follows an error that nobody foresaw."""

_MAX_TEXT = 300
_SIGNAL = 128
"""Exit codes above this one say which signal ended the command, as shells do."""


class NoSpace(Unavailable):
    """A disk is full, or a quota is used up."""

    code = "no-space"
    remedy = "Free some space, or choose a folder on another disk."


class AccessDenied(Unavailable):
    """The operating system does not let this user do it."""

    code = "access-denied"
    remedy = "Check the owner and the mode of what is named; some commands need root."


class NoSuchFile(NotFound):
    """A file or a folder is not there."""

    code = "no-such-file"
    remedy = "Check the path."


class IoFailed(Unavailable):
    """The operating system could not do what was asked of it."""

    code = "io-error"
    remedy = "The message is the operating system's; `catena doctor` checks this machine."


class Stopped(CatenaError):
    """The command was told to end before it was done."""

    code = "stopped"
    remedy = "What was half made is removed; run the command again."


class Defect(CatenaError):
    """Nobody foresaw this."""

    code = "internal"
    remedy = f"A defect of catena. Please report it, with what {DEBUG}=1 prints."


_OS_ERRORS: dict[int | None, type[CatenaError]] = {
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
    errno.EACCES: AccessDenied,
    errno.EPERM: AccessDenied,
    errno.EROFS: AccessDenied,
    errno.ENOENT: NoSuchFile,
    errno.ENOTDIR: NoSuchFile,
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

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Exit codes of all nouns, then examples."""
        del ctx
        output.write_epilog(
            formatter, tuple(ExitCode), ("catena doctor", "catena lab up", "catena node --help")
        )


@click.group(cls=Catena, context_settings={"help_option_names": output.HELP_OPTIONS})
@click.version_option(__version__, prog_name="catena")
def catena() -> None:
    """A chain of trust from firmware keys to every container and cluster."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``catena`` command; never returns."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Like Ctrl-C, an order to end leaves time to remove what is half made.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # not under nohup
            signal.signal(number, _end)
    status = run(words)
    if status > _SIGNAL:
        # Whoever waits for us is to see what it was: a service manager takes that for a clean end.
        sys.stdout.flush()
        signal.signal(status - _SIGNAL, signal.SIG_DFL)
        os.kill(os.getpid(), status - _SIGNAL)
    sys.exit(status)


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    as_json = output.wants_json(words)
    try:
        result = catena.main(list(words), prog_name="catena", standalone_mode=False)
    except click.ClickException as error:
        output.report_usage(error, as_json=as_json)
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return _stopped(signal.SIGINT, as_json=as_json)
    except _Ended as ended:
        return _stopped(ended.number, as_json=as_json)
    except SystemExit as end:
        # The reader of a pipe went away (`catena … | head`): click ends with 1, silently. We end
        # as other programs do there, which shells know to be no failure.
        if isinstance(end.__context__, BrokenPipeError):
            return _SIGNAL + signal.SIGPIPE
        raise
    except Exception as error:  # noqa: BLE001 - the last place where it can be told well
        told = _told(error)
        output.report(told, as_json=as_json)
        if isinstance(told, Defect) and os.environ.get(DEBUG):
            traceback.print_exception(error)
        return told.exit_code
    return result if isinstance(result, int) else ExitCode.OK


def _told(error: Exception) -> CatenaError:
    """Any error as one that has a code and a remedy."""
    if isinstance(error, CatenaError):
        return error
    if isinstance(error, OSError):
        kind = _OS_ERRORS.get(error.errno, IoFailed)
        place = f": {error.filename}" if error.filename else ""
        return kind(f"{error.strerror or type(error).__name__}{place}"[:_MAX_TEXT])
    return Defect(f"{type(error).__name__}: {ascii(str(error))[1:-1]}"[:_MAX_TEXT])


class _Ended(BaseException):
    """A signal told this command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _end(number: int, _frame: object) -> None:
    raise _Ended(number)


def _stopped(number: int, *, as_json: bool) -> int:
    output.report(Stopped(f"stopped by {signal.Signals(number).name}"), as_json=as_json)
    return _SIGNAL + number


if __name__ == "__main__":
    main()
