"""The report as one page with its plot, readable offline: HTML and SVG, no script, nothing loaded."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from catena.lab.fleet.simulation import Bucket, FleetReport, Latency

_WIDTH, _HEIGHT, _LEFT, _FOOT = 640, 220, 46, 34
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}"
    "td{padding:.1rem 1.2rem .1rem 0}svg{max-width:100%}rect{fill:#2a6f97}text{font-size:11px}"
    ".wrong{color:#b00020;font-weight:bold}"
)


def page(report: FleetReport) -> str:
    """The whole document."""
    wrong = "".join(
        f'<p class="wrong">{html.escape(what)}: {count}</p>' for what, count in report.wrong.items()
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>catena lab fleet</title>'
        f"<style>{_STYLE}</style><h1>A simulated fleet of {report.nodes} nodes</h1>"
        f"<p>{html.escape(source(report))}; boots: {html.escape(', '.join(report.boots))}</p>{wrong}"
        f"<h2>Latency of an attestation</h2>{plot(report.latency)}"
        f"<h2>Figures</h2>{_table(tuple(figures(report)))}"
        f"<h2>Hostile requests, all refused as they must be</h2>"
        f"{_table(tuple((name, f'{count}') for name, count in report.hostile.items()))}"
        f"{_left_out(report)}</html>\n"
    )


def source(report: FleetReport) -> str:
    """What made the quotes, in words."""
    return f"{report.tpms} {report.keys}" if report.tpms else report.keys


def _left_out(report: FleetReport) -> str:
    if not report.left_out:
        return ""
    return f"<h2>Attacks left out, and why</h2>{_table(tuple(report.left_out.items()))}"


def figures(report: FleetReport) -> Iterator[tuple[str, str]]:
    """The report's figures in words, for the page and for the terminal."""
    wanted = "as many as go" if report.rate_wanted is None else f"{report.rate_wanted:g}/s wanted"
    yield "attestations", f"{report.attestations} in {report.seconds:g} s"
    yield "rate", f"{report.rate:g}/s ({wanted}), {report.connections} connections"
    if report.generators > 1:
        yield "generators", f"{report.generators} processes"
    if report.server_cpu_ms is not None:
        yield (
            "server CPU",
            f"{report.server_cpu_ms:g} ms each, {report.server_cpu_busy:g} cores busy",
        )
    apart = "the server's and the TPMs'" if report.tpms else "the server's"
    yield "generator CPU", f"{report.generator_cpu_ms:g} ms each, without {apart}"
    for name, one in (("latency", report.latency), ("first attestation", report.first)):
        yield (
            name,
            f"p50 {one.p50:g} ms, p90 {one.p90:g} ms, p99 {one.p99:g} ms, max {one.most:g} ms",
        )
    yield "memory", f"{report.rss_before_mb:g} MB before, {report.rss_after_mb:g} MB after"
    yield "open files", f"{report.files_before} before, {report.files_after} after"
    yield "hostile", f"{sum(report.hostile.values())} of {len(report.hostile)} kinds, refused"
    yield "wrong", f"{sum(report.wrong.values())} wrong answers, {report.faults} server errors"


def plot(latency: Latency) -> str:
    """The histogram in SVG."""
    shown = _shown(latency.histogram)
    most = max((one.count for one in shown), default=0) or 1
    step = (_WIDTH - _LEFT) / max(len(shown), 1)
    bars = []
    for number, one in enumerate(shown):
        height = (_HEIGHT - _FOOT - 20) * one.count / most
        x, y = _LEFT + number * step, _HEIGHT - _FOOT - height
        middle = x + step / 2
        bars.append(
            f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{step - 4:.1f}" height="{height:.1f}"/>'
            f'<text x="{middle:.1f}" y="{y - 4:.1f}" text-anchor="middle">{one.count}</text>'
            f'<text x="{middle:.1f}" y="{_HEIGHT - _FOOT + 14}" text-anchor="middle">'
            f"{html.escape(label(one))}</text>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="Latency histogram">{"".join(bars)}'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle">milliseconds</text></svg>'
    )


def bars(latency: Latency, width: int = 40) -> Iterator[tuple[str, str, str]]:
    """The histogram for a terminal: bucket, bar, count."""
    shown = _shown(latency.histogram)
    most = max((one.count for one in shown), default=0) or 1
    for one in shown:
        yield label(one), "█" * round(width * one.count / most), f"{one.count}"


def label(bucket: Bucket) -> str:
    """What the bucket holds."""
    return "more" if bucket.up_to_ms is None else f"≤ {bucket.up_to_ms:g}"


def _shown(histogram: Sequence[Bucket]) -> Sequence[Bucket]:
    """Without empty buckets at either end."""
    filled = [number for number, one in enumerate(histogram) if one.count]
    return histogram[filled[0] : filled[-1] + 1] if filled else ()


def _table(rows: Sequence[tuple[str, str]]) -> str:
    cells = (f"<tr><td>{html.escape(a)}</td><td>{html.escape(b)}</td></tr>" for a, b in rows)
    return f"<table>{''.join(cells)}</table>"
