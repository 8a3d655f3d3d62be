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
        from catena.server.client import read_token
        from catena.server.log_reader import UrlReader

        token = None if self.token_file is None else read_token(self.token_file)
        with UrlReader(self.where, ca=self.ca, token=token, kept=self.kept) as reader:
            yield reader


def log_source(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument LOG and its options; the verb receives ``source``."""

    @functools.wraps(verb)
    def function(
        *,
        log: str | None,
        ca: Path | None,
        token_file: Path | None,
        **others: Any,  # noqa: ANN401 - the verb's own options, passed through
    ) -> Any:  # noqa: ANN401 - as above
        if log is None:
            found = in_home("server", "log")
            if found is None:
                raise click.UsageError("Missing option '--log': there is no lab here.")
            log = str(found)
        return verb(source=LogSource(log, ca, token_file), **others)

    decorated: Callable[..., Any] = function
    for option in reversed((_LOG, *READING)):
        decorated = option(decorated)
    return decorated


_LOG = click.option("--log", metavar="FOLDER|URL", help="The log.  [default: a lab's own]")
READING = (
    click.option("--ca", type=_FILE, help="PEM certificates that a URL's server is trusted by."),
    click.option(
        "--token-file", type=_FILE, help="Token of a viewer, for a log that asks for one."
    ),
)


def key_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--key`` and ``--origin``; the verb receives ``key``, a public key, and ``origin``."""

    @functools.wraps(verb)
    def function(*, key_path: Path, **others: Any) -> Any:  # noqa: ANN401 - passed through
        from catena.audit.checkpoint import require_log_key
        from catena.keys.signer import load_public_key

        return verb(key=require_log_key(load_public_key(key_path)), **others)

    decorated = click.option("--origin", help="Refuse the log unless it has this origin.")(function)
    return click.option(
        "--key",
        "key_path",
        required=True,
        type=_FILE,
        default=lambda: in_home("keys", "log.pub"),
        show_default=".catena/keys/log.pub, if it is there",
        help="The log's public key.",
    )(decorated)
