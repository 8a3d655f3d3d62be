"""``catena audit``: read, prove and verify the log of every decision."""

from __future__ import annotations

import click

from catena.cli import output
from catena.cli.audit_chain import chain
from catena.cli.audit_people import forget, people
from catena.cli.audit_prove import prove
from catena.cli.audit_replay import replay
from catena.cli.audit_report import report
from catena.cli.audit_search import search
from catena.cli.audit_tail import tail
from catena.cli.audit_verify import verify
from catena.cli.audit_witness import witness_noun


@click.group(cls=output.Noun, name="audit")
def noun() -> None:
    """Verify the log of every decision, offline."""


noun.add_command(verify)
noun.add_command(prove)
noun.add_command(tail)
noun.add_command(search)
noun.add_command(replay)
noun.add_command(report)
noun.add_command(chain)
noun.add_command(people)
noun.add_command(forget)
noun.add_command(witness_noun)
