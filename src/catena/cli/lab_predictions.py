"""The table of predicted against actual PCRs."""

from __future__ import annotations

import click

from catena.lab.predictions import CaseResult, PcrResult

PCRS = range(16)


def render(results: tuple[CaseResult, ...]) -> None:
    """A row for each boot, a column for each PCR; then what did not agree, value by value."""
    width = max(len(one.name) for one in results) + 2
    click.echo(f"{'PCR':<{width}}" + "".join(f"{pcr:>3}" for pcr in PCRS))
    for one in results:
        marks = "".join(f"{_mark(pcr):>3}" for pcr in one.pcrs)
        click.echo(f"{one.name:<{width}}{marks}   {one.about}")
    click.echo("✓ predicted in every bank   ✗ another value   ? not predicted")
    for one in results:
        for pcr in one.pcrs:
            if not pcr.agrees:
                _explain(one.name, pcr)


def _mark(result: PcrResult) -> str:
    if result.agrees:
        return "✓"
    return "✗" if result.predicted else "?"


def _explain(name: str, result: PcrResult) -> None:
    why = result.reason or f"{result.values} values, branch {result.branch!r}"
    click.echo(f"\n{name}, PCR {result.pcr}: {why}")
    for bank, value in result.held.items():
        click.echo(f"  {bank:<7} predicted {result.predicted.get(bank, '-')}")
        click.echo(f"  {'':<7} held      {value}")
