"""The review of the quote's way: every check of TRUST, attestation step 5, taken out one at a time.

A check that can be taken out without a test noticing is a check that nobody would miss. Each mutation removes
one refusal (a ``raise``, or a ``yield`` of a fault) from one function, or makes a judgement say nothing, in
a process of its own; then the tests of that step run until the first one fails.

    python tests/security/mutations.py [-o json] [STEP …]

Ends with 1 if a mutation survives. ``make mutations`` runs all of them.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import inspect
import io
import json
import multiprocessing
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FunctionType

import pytest

TESTS = Path(__file__).resolve().parents[1]
QUOTE, NONCE = "appraise/test_quote.py", "appraise/test_appraise_nonce.py"
LOGS, BOOT = "appraise/test_appraise_logs.py", "appraise/test_boot.py"
APPRAISAL, POLICY = "appraise/test_appraisal.py", "appraise/test_policy.py"
GRAMMAR, FACTS = "measure/test_grammar.py", "measure/test_facts.py"
BINDING, EXPLANATION = "measure/test_binding.py", "appraise/test_explanation.py"
FORMATS = "formats/test_tpm2.py"


@dataclass(frozen=True)
class Check:
    """A function of one step whose refusals are taken out one by one.

    ``silent``: it is made to find nothing at all, instead. ``always``: its condition with this text
    is made true.
    """

    step: str
    where: str
    tests: tuple[str, ...]
    silent: bool = False
    always: str = ""


CHECKS = (
    Check("a", "catena.appraise.quote:check_structure", (QUOTE,)),
    Check("a", "catena.formats.reader:Reader.done", (QUOTE, FORMATS)),
    Check("a", "catena.appraise.quote:check_signer", (QUOTE,)),
    Check("b", "catena.appraise.quote:check_signature", (QUOTE,)),
    Check("c", "catena.appraise.csr:read_csr", (QUOTE, APPRAISAL)),
    Check("c", "catena.appraise.csr:_check_possession", (QUOTE, APPRAISAL)),
    Check("c", "catena.appraise.quote:check_binding", (QUOTE,)),
    Check("c", "catena.appraise.nonce:check_nonce", (NONCE,)),
    Check("c", "catena.appraise.nonce:check_age", (NONCE,)),
    Check("d", "catena.appraise.quote:check_bank", (QUOTE,)),
    Check("d", "catena.appraise.quote:check_selection", (QUOTE,)),
    Check("d", "catena.appraise.quote:check_pcr_digest", (QUOTE,)),
    Check("e", "catena.appraise.quote:check_clock", (QUOTE,)),
    Check("f", "catena.appraise.replayed:check_extended", (LOGS, BOOT)),
    Check("f", "catena.appraise.replayed:check_replay", (LOGS, BOOT)),
    Check("f", "catena.appraise.replayed:_ima_prefix", (LOGS, BOOT)),
    Check("f", "catena.appraise.logs:read_logs", (LOGS,)),
    Check("f", "catena.appraise.logs:_by_kind", (LOGS,)),
    Check("f", "catena.appraise.logs:_content", (LOGS, APPRAISAL)),
    Check("f", "catena.appraise.logs:_boot_log", (LOGS,)),
    Check("f", "catena.appraise.logs:_count_entries", (LOGS,)),
    Check("g", "catena.measure.facts:_key_measurements", (FACTS, BOOT)),
    Check(
        "g",
        "catena.measure.reading:_readings",
        (FACTS, BOOT, BINDING),
        always="hasher(event.data).digest() == digest",
    ),
    Check("h", "catena.measure.grammar:_extended", (GRAMMAR,)),
    Check("h", "catena.measure.grammar:_no_actions", (GRAMMAR,)),
    Check("h", "catena.measure.grammar:_startup_locality", (GRAMMAR,)),
    Check("h", "catena.measure.grammar:_locality", (GRAMMAR,)),
    Check("h", "catena.measure.grammar:_digests", (GRAMMAR,)),
    Check("h", "catena.measure.grammar:_separators", (GRAMMAR,)),
    Check("h", "catena.measure.grammar:_late", (GRAMMAR,)),
    Check("h", "catena.measure.grammar:check", (GRAMMAR, BOOT)),
    Check("i", "catena.appraise.explanation:_unclaimed_reasons", (EXPLANATION, BOOT), silent=True),
    Check("i", "catena.appraise.explanation:_reference_reasons", (EXPLANATION, BOOT), silent=True),
    Check("j", "catena.appraise.policy:Policy.judge", (POLICY, APPRAISAL), silent=True),
    Check("j", "catena.appraise.policy:compile_policy", (POLICY,)),
)
PATH = "catena.appraise.appraisal:_prove_quote"
"""The calls of steps a to e: each is taken out, too, lest a check be tested and never made."""
CALLS = (
    ("a", "check_signer"),
    ("b", "check_signature"),
    ("c", "check_binding"),
    ("c", "check_fresh"),
    ("d", "check_selection"),
    ("d", "check_pcr_digest"),
)


@dataclass(frozen=True)
class Mutation:
    """One change to one function: ``number`` counts the refusals in it."""

    check: Check
    number: int
    removed: str

    @property
    def name(self) -> str:
        """What is taken out, from where."""
        return f"{self.check.where.rpartition(':')[2]} without {self.removed}"


@dataclass(frozen=True)
class Outcome:
    """The first test that a mutation made fail; empty if none did."""

    step: str
    mutation: str
    where: str
    caught_by: str


def mutations() -> Iterator[Mutation]:
    """All of them, in the order of the steps."""
    calls = [Check(step, PATH, (QUOTE, NONCE, APPRAISAL), always=name) for step, name in CALLS]
    for check in sorted((*CHECKS, *calls), key=lambda one: one.step):
        if check.silent:
            yield Mutation(check, 0, "all it finds")
        elif check.where == PATH:
            yield Mutation(check, 0, f"the call of {check.always}")
        elif check.always:
            yield Mutation(check, 0, f"the condition {check.always}")
        else:
            refusals = list(_refusals(_tree(_function(check.where))))
            for number, node in enumerate(refusals):
                yield Mutation(check, number, _told(node))


def _function(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    found: object = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return inspect.unwrap(found)  # type: ignore[arg-type]


def _tree(function: FunctionType) -> ast.Module:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def _refusals(tree: ast.AST) -> Iterator[ast.stmt]:
    """Every statement that refuses, in order."""
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield))
    ]
    yield from sorted(found, key=lambda node: node.lineno)


def _told(node: ast.stmt) -> str:
    value = node.exc if isinstance(node, ast.Raise) else node.value.value  # type: ignore[attr-defined]
    return ast.unparse(value.func if isinstance(value, ast.Call) else value)


class _Removing(ast.NodeTransformer):
    """Replaces one node by another."""

    def __init__(self, node: ast.AST, instead: ast.AST) -> None:
        self._node, self._instead = node, instead

    def visit(self, node: ast.AST) -> ast.AST:
        return self._instead if node is self._node else super().visit(node)


def apply(mutation: Mutation) -> None:
    """Change the function in this process, wherever it was imported to."""
    check = mutation.check
    function = _function(check.where)
    tree = _tree(function)
    changed = _changed(tree, mutation)
    ast.fix_missing_locations(changed)
    definition = changed.body[0]
    definition.decorator_list = []  # type: ignore[attr-defined]
    code = compile(changed, f"<{mutation.name}>", "exec")
    scope = dict(function.__globals__)
    exec(code, scope)  # our own source, one statement of it changed
    function.__code__ = scope[function.__name__].__code__


def _changed(tree: ast.Module, mutation: Mutation) -> ast.Module:
    check = mutation.check
    if check.silent:
        tree.body[0].body = [ast.parse("return ()").body[0]]  # type: ignore[attr-defined]
        return tree
    if check.where == PATH:
        node = next(
            one
            for one in ast.walk(tree)
            if isinstance(one, ast.Expr)
            and isinstance(one.value, ast.Call)
            and ast.unparse(one.value.func) == check.always
        )
        return _Removing(node, ast.Pass()).visit(tree)
    if check.always:
        node = next(
            one
            for one in ast.walk(tree)
            if isinstance(one, ast.Compare) and ast.unparse(one) == check.always
        )
        return _Removing(node, ast.Constant(True)).visit(tree)
    node = list(_refusals(tree))[mutation.number]
    instead: ast.stmt = ast.Pass()
    if isinstance(node, ast.Expr):  # a generator must stay one
        instead = ast.If(ast.Constant(False), [ast.Expr(ast.Yield())], [])
    return _Removing(node, instead).visit(tree)


class _FirstFailure:
    """A pytest plugin that remembers which test failed first."""

    def __init__(self) -> None:
        self.name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


def _first_failure(mutation: Mutation | None, tests: tuple[str, ...], told: Callable) -> None:
    """In a child process: mutate, run the tests, tell which failed first."""
    if mutation is not None:
        apply(mutation)
    plugin = _FirstFailure()
    words = [
        "-x",
        "-q",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(TESTS.parent),
    ]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main([*words, *(str(TESTS / one) for one in tests)], plugins=[plugin])
    told(plugin.name)


def caught_by(mutation: Mutation | None, tests: tuple[str, ...]) -> str:
    """The first test that fails, or nothing. Without a mutation none may."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=_first_failure, args=(mutation, tests, writer.send))
    child.start()
    writer.close()
    try:
        name = reader.recv()
    except EOFError:
        name = "the test process itself"
    child.join()
    return str(name).removeprefix("tests/")


def outcomes(chosen: Sequence[Mutation]) -> Iterator[Outcome]:
    """Each mutation, tried."""
    for one in chosen:
        found = caught_by(one, one.check.tests)
        yield Outcome(one.check.step, one.name, one.check.where, found)


def main() -> None:
    """Parse the command line, try, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="a to j; all if none is given")
    options = parser.parse_args()
    steps = tuple(options.steps)
    chosen = [one for one in mutations() if not steps or one.check.step in steps]
    unchanged = caught_by(None, tuple(sorted({test for one in chosen for test in one.check.tests})))
    if unchanged:
        sys.exit(f"without a mutation already fails: {unchanged}")
    found = []
    for one in outcomes(chosen):
        found.append(one)
        if options.output == "table":
            print(f"5{one.step}  {one.mutation:<58} {one.caught_by or 'SURVIVED'}", flush=True)
    survivors = [one for one in found if not one.caught_by]
    if options.output == "json":
        print(json.dumps([asdict(one) for one in found], indent=2))
    else:
        print(f"{len(found)} mutations, {len(survivors)} survived")
    sys.exit(bool(survivors) or not found)


if __name__ == "__main__":
    main()
