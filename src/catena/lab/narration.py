"""How long work is told: one line a step with what was checked, a spinner while it runs.

On a terminal a step spins until it is done; elsewhere its line appears when it is done. The
lines are the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text


class Step:
    """One step being told; ``checked`` says what was found to hold."""

    def __init__(self, status: Status | None) -> None:
        self._status = status
        self.findings: list[str] = []

    def doing(self, what: str) -> None:
        """Say what is happening right now (only seen on a terminal)."""
        if self._status is not None:
            self._status.update(Text(what))

    def checked(self, what: str) -> None:
        """Add a finding to the step's line."""
        self.findings.append(what)


class Narrator:
    """Tells steps on a console, with the time each took."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._began = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Tell one step; an exception marks its line and goes on its way."""
        began = time.monotonic()
        status = None
        if self.console.is_terminal:
            status = Status(Text(title), console=self.console)
            status.start()
        step = Step(status)
        mark, style = "✗", "bold red"
        try:
            yield step
            mark, style = "✓", "green"
        finally:
            if status is not None:
                status.stop()
            self._line(mark, style, time.monotonic() - began, title, step.findings)

    def line(self, title: str, found: list[str]) -> None:
        """Tell something that was already timed as a part of another step."""
        self._line("✓", "green", None, title, found)

    def chapter(self, title: str) -> None:
        """Start a new part of the story."""
        self.console.print()
        self.console.print(Text(title, style="bold"))

    def command(self, line: str) -> None:
        """Show the command that a person would type for the next step."""
        self.console.print(Text(f"          $ {line}", style="dim"), soft_wrap=True)

    def table(self, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        """A summary table."""
        grid = Table(header_style="bold", title_justify="left")
        for column in columns:
            grid.add_column(column, overflow="fold")
        for row in rows:
            grid.add_row(*(Text(cell) for cell in row))
        self.console.print(grid)

    def total(self) -> float:
        """Seconds since this narrator began."""
        return time.monotonic() - self._began

    def _line(
        self, mark: str, style: str, seconds: float | None, title: str, found: list[str]
    ) -> None:
        took = " " * 10 if seconds is None else f"{seconds:6.1f} s  "
        line = Text.assemble((f"{mark} ", style), (took, "dim"), title)
        if found:
            line.append(": " + "; ".join(found))
        self.console.print(line, soft_wrap=True)
