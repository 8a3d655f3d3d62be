"""Where a log is read from, as verbs of ``catena audit`` are told: a folder or a URL."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from catena.cli.home import in_home

if TYPE_CHECKING:
    from catena.audit.reader import LogReader

_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True)
class LogSource:
    """A log and what it takes to read it; ``kept`` is a folder for full tiles of a remote one."""

    where: str
    ca: Path | None
    token_file: Path | None
    kept: Path | None = None

    @property
    def is_url(self) -> bool:
        """Whether it is read over HTTP."""
        return self.where.startswith(("https://", "http://"))

    @property
    def folder(self) -> Path:
        """Its folder, if it has one."""
        return Path(self.where)

    @contextmanager
    def opened(self) -> Iterator[LogReader]:
        """The log, to be read."""
        if not self.is_url:
            from catena.audit.folder import LogFolder

            yield LogFolder(self.folder)
            return
        from catena.server.log_reader import UrlReader
        from catena.server.profile import read_token

        token = None if self.token_file is None else read_token(self.token_file)
        with UrlReader(self.where, ca=self.ca, token=token, kept=self.kept) as reader:
            yield reader


def log_source(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--log`` and its options; the verb receives ``source``."""
    option = click.option(
        "--log", "where", metavar="FOLDER|URL", help="The log.  [default: a lab's own]"
    )
    return option(_reading(verb, "Missing option '--log'"))


def log_argument(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an argument, a log or what else the verb takes, with its options; it receives ``source``."""

    def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
        keep = click.option(
            "--keep",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder for what was read of a URL, so that it is read once.",
        )
        argument = click.argument("where", metavar=f"[{name}]", required=False)
        return argument(keep(_reading(verb, f"Missing argument '{name}'")))

    return decorate


def _reading(verb: Callable[..., Any], missing: str) -> Callable[..., Any]:
    @functools.wraps(verb)
    def function(
        *,
        where: str | None,
        ca: Path | None,
        token_file: Path | None,
        keep: Path | None = None,
        **others: Any,  # noqa: ANN401 - the verb's own options, passed through
    ) -> Any:  # noqa: ANN401 - as above
        where = where or str(in_home("server", "log") or "")
        if not where:
            raise click.UsageError(f"{missing}: there is no lab here.")
        return verb(source=LogSource(where, ca, token_file, keep), **others)

    ca = click.option(
        "--ca", type=_FILE, help="PEM certificates that a URL's server is trusted by."
    )
    token_file = click.option(
        "--token-file", type=_FILE, help="Token of an auditor, for a log that asks for one."
    )
    return ca(token_file(function))


def key_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--key`` and ``--origin``; the verb receives ``key``, a public key, and ``origin``."""
    origin = click.option("--origin", help="Refuse the log unless it has this origin.")
    return key_option(origin(verb))


def key_option(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--key``; the verb receives ``key``, a public key that a log may have."""

    @functools.wraps(verb)
    def function(*, key_path: Path, **others: Any) -> Any:  # noqa: ANN401 - passed through
        from catena.audit.checkpoint import require_log_key
        from catena.keys.signer import load_public_key

        return verb(key=require_log_key(load_public_key(key_path)), **others)

    return click.option(
        "--key",
        "key_path",
        required=True,
        type=_FILE,
        default=lambda: in_home("keys", "log.pub"),
        show_default=".catena/keys/log.pub, if it is there",
        help="The log's public key.",
    )(function)
