"""A report as a page for people: one HTML file without scripts, pictures or links; all text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from catena.audit.facts import node_of
from catena.audit.report import VerifiedReport

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Report of an audit log</title>
<style>
body { font: 14px/1.5 sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em }
table { border-collapse: collapse; width: 100% } td, th { border-bottom: 1px solid #ccc; padding: .3em .6em;
text-align: left; vertical-align: top; overflow-wrap: anywhere } code { overflow-wrap: anywhere }
</style></head><body>
"""


def render_page(report: VerifiedReport) -> str:
    """The page for a verified report."""
    about = (
        ("log", report.origin),
        ("tree", f"{report.size} entries, root {report.root}"),
        ("state at", f"{report.at:%Y-%m-%d %H:%M:%S}Z"),
        ("made", f"{report.made_at:%Y-%m-%d %H:%M:%S}Z, signed with key {report.signed_by}"),
        ("evidence", f"{len(report.contents)} contents, {len(report.missing)} missing"),
    )
    verdicts = (
        (
            entry.node_name or entry.node_id[:16],
            entry.verdict,
            entry.state,
            entry.release or "–",
            ", ".join(reason.code for reason in entry.reasons) or "–",
            f"{entry.at:%Y-%m-%d %H:%M:%S}Z",
            str(index),
        )
        for index, entry in report.verdicts()
    )
    entries = (
        (
            str(index),
            f"{entry.at:%Y-%m-%d %H:%M:%S}Z",
            entry.kind,
            (node_of(entry)[1] or node_of(entry)[0] or "–")[:32],
            entry.summary(),
        )
        for index, entry in report.entries.items()
    )
    heading = "The fleet" if report.scope == "fleet" else "One node"
    return (
        f"{_HEAD}<h1>{heading}, as the audit log proves it</h1>"
        + _table((), about)
        + "<h2>Verdicts in force</h2>"
        + _table(("node", "verdict", "state", "release", "reasons", "at", "entry"), verdicts)
        + "<h2>Entries</h2>"
        + _table(("entry", "at", "kind", "node", "summary"), entries)
        + "<p>This page proves nothing by itself: <code>catena audit verify</code> checks the report it was made of.</p>"
        + "</body></html>\n"
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"
