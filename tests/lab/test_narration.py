from __future__ import annotations

import io

import pytest
from rich.console import Console

from catena.lab.narration import Narrator


@pytest.fixture
def told():
    return io.StringIO()


@pytest.fixture
def narrator(told):
    return Narrator(Console(file=told, highlight=False, width=60))


def test_step_is_one_line_with_what_was_checked(narrator, told):
    with narrator.step("keys made") as step:
        step.doing("this is only for terminals")
        step.checked("PK")
        step.checked("KEK " + "x" * 100)
    (line,) = told.getvalue().splitlines()
    assert line.startswith("✓    0.0 s  keys made: PK; KEK xxx")


def test_failed_step_is_marked_and_its_error_goes_on(narrator, told):
    with pytest.raises(ZeroDivisionError), narrator.step("keys made"):
        raise ZeroDivisionError
    assert told.getvalue().startswith("✗ ")


def test_markup_in_what_is_told_is_only_text(narrator, told):
    narrator.line("[bold]not[/bold]", ["[red]me[/red]"])
    narrator.command("catena [x]")
    narrator.table(("a",), [("[b]",)])
    text = told.getvalue()
    assert "[bold]not[/bold]: [red]me[/red]" in text
    assert "$ catena [x]" in text
    assert "[b]" in text


def test_terminal_sees_the_same_line_after_the_spinner():
    seen = io.StringIO()
    narrator = Narrator(Console(file=seen, force_terminal=True, highlight=False))
    with narrator.step("keys made") as step:
        step.doing("PK")
    assert "keys made" in seen.getvalue().splitlines()[-1]
