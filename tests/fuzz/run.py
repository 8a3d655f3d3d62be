"""Fuzz every parser for a while and say what was found.

    python tests/fuzz/run.py [--seconds 60] [--jobs 2] [--folder .cache/fuzz] [TARGET...]

Prints a line for each target: inputs tried, inputs each second, branches reached (``cov``) and
paths told apart (``ft``). Exits 1 if an input broke a rule: it is in the folder, and

    python tests/fuzz/fuzz_one.py TARGET --again FILE

shows what it does. The folder also keeps what was learnt, where the next run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzz_path import ONE, PROJECT

# isort: split
import fuzz_targets

MAX_INPUT = 64 * 1024
_LAST_STATE = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+)")
_SPEED = re.compile(r"stat::average_exec_per_sec:\s+(\d+)")
_RUNS = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What fuzzing one target came to; ``findings`` are files."""

    target: str
    runs: int
    speed: int
    coverage: int
    features: int
    findings: tuple[Path, ...]
    output: str

    @property
    def failed(self) -> bool:
        """True if an input broke a rule, or nothing was fuzzed at all."""
        return bool(self.findings) or not self.runs


def fuzz(target: fuzz_targets.Target, seconds: int, folder: Path) -> Outcome:
    """Fuzz one target in a process of its own."""
    learnt, seeds, found = (folder / target.name / name for name in ("learnt", "seeds", "found"))
    for place in (learnt, seeds, found):
        place.mkdir(parents=True, exist_ok=True)
    _write_seeds(seeds, target.seeds())
    words = folder / target.name / "words"
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in target.words))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT}",
        f"-dict={words}",
        f"-artifact_prefix={found}/",
        "-timeout=30",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    before = set(found.iterdir())
    process = subprocess.run(
        [sys.executable, ONE, target.name, *options, learnt, seeds],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    states = _LAST_STATE.findall(process.stdout)
    runs, coverage, features = map(int, states[-1]) if states else (0, 0, 0)
    counted, speed = _RUNS.search(process.stdout), _SPEED.search(process.stdout)
    return Outcome(
        target=target.name,
        runs=int(counted[1]) if counted else runs,
        speed=int(speed[1]) if speed else 0,
        coverage=coverage,
        features=features,
        findings=tuple(sorted(set(found.iterdir()) - before)),
        output=process.stdout,
    )


def _write_seeds(folder: Path, seeds: Iterable[bytes]) -> None:
    for seed in seeds:
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def _quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def told(outcome: Outcome) -> str:
    """One line for a target; for a finding also the end of what the fuzzer said."""
    line = (
        f"{outcome.target:14} {outcome.runs:>10} inputs {outcome.speed:>6}/s"
        f"  cov {outcome.coverage:>5}  ft {outcome.features:>6}  findings {len(outcome.findings)}"
    )
    if not outcome.failed:
        return line
    again = "".join(
        f"\n    python {ONE.relative_to(PROJECT)} {outcome.target} --again {path}"
        for path in outcome.findings
    )
    return f"{line}{again}\n{_complaint(outcome.output)}"


def _complaint(output: str) -> str:
    """The traceback, or the end of the output."""
    lines = output.splitlines()
    start = next((at for at, line in enumerate(lines) if "exception" in line.lower()), -20)
    return "\n".join(f"    {line}" for line in lines[start:][:40])


def main() -> int:
    """The command."""
    targets = fuzz_targets.TARGETS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(targets))
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (2)")
    parser.add_argument("--folder", type=Path, default=PROJECT / ".cache/fuzz")
    asked = parser.parse_args()
    unknown = sorted(set(asked.targets) - targets.keys())
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(targets)}")
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: scripts/setup does that, on x86-64 only")
    chosen = [targets[name] for name in asked.targets or targets]
    failed = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        for outcome in pool.map(lambda one: fuzz(one, asked.seconds, asked.folder), chosen):
            print(told(outcome), flush=True)
            failed += outcome.failed
    print(f"{len(chosen) - failed} targets held, {failed} did not")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
