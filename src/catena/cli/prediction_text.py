"""How ``catena os predict`` shows what a boot will measure."""

from __future__ import annotations

import click
import msgspec

from catena.cli.connection import printable
from catena.measure.prediction import Prediction, Value


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """One predicted measurement; ``digests`` by bank."""

    what: str
    digests: dict[str, str]


class ValueView(msgspec.Struct, frozen=True, kw_only=True):
    """One possible value of a PCR: by bank, with the branch and the events that lead to it."""

    branch: str
    digests: dict[str, str]
    events: tuple[EventView, ...]


class PcrView(msgspec.Struct, frozen=True, kw_only=True):
    """All values of one PCR, or the reason why there is none (or not for every branch)."""

    values: tuple[ValueView, ...]
    reason: str | None


class PredictionView(msgspec.Struct, frozen=True, kw_only=True):
    """Every PCR from 0 to 15 by its number."""

    banks: tuple[str, ...]
    pcrs: dict[str, PcrView]


def view(prediction: Prediction) -> PredictionView:
    """A prediction as ``-o json`` prints it."""
    return PredictionView(
        banks=tuple(bank.value for bank in prediction.banks),
        pcrs={
            str(one.pcr): PcrView(
                values=tuple(_value(value, prediction) for value in one.values), reason=one.reason
            )
            for one in prediction.pcrs
        },
    )


def _value(value: Value, prediction: Prediction) -> ValueView:
    return ValueView(
        branch=value.branch,
        digests={bank.value: digest.hex() for bank, digest in value.digests.items()},
        events=tuple(
            EventView(
                what=event.what,
                digests={bank.value: event.digest(bank).hex() for bank in prediction.banks},
            )
            for event in value.events
        ),
    )


def render(prediction: PredictionView) -> None:
    """A line for each value and bank; branches and reasons below."""
    for pcr, found in prediction.pcrs.items():
        head = f"PCR {pcr}"
        for value in found.values:
            for bank, digest in value.digests.items():
                label = f"{bank:<8}" if len(prediction.banks) > 1 else ""
                click.echo(f"{head:<7} {label}{digest}")
                head = ""
            if value.branch:
                click.echo(f"{'':<7} if: {printable(value.branch)}")
        if found.reason is not None:
            click.echo(f"{head:<7} not predicted: {printable(found.reason)}")
