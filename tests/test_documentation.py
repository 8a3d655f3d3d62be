"""The documents say what the code does: codes, tests, commands, settings, exit codes."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import msgspec
import pytest

import catena
from catena.agent.config import AgentConfig
from catena.appraise.facts import FACT_TABLE
from catena.appraise.policy import compile_policy, default_policy_text
from catena.appraise.tolerance import TOLERANCES
from catena.cli.main import catena as command
from catena.errors import CatenaError, ExitCode
from catena.lab.attacks import GALLERY
from catena.server.access import AccessLine, FaultLine
from catena.server.app import OPERATIONS
from catena.server.config import Config
from catena.server.lifecycle import Lifecycle, LifeLine
from catena.server.witness_folder import WitnessConfig
from catena.service.roles import RIGHTS, Right

PROJECT = Path(__file__).resolve().parents[1]
THREATS = (PROJECT / "docs/threats.md").read_text()
MANUAL = (PROJECT / "docs/manual.md").read_text()
README = (PROJECT / "README.md").read_text()
AREAS = ("Quote", "Log", "Boot", "Identity", "Containers", "Server")

_TEST = re.compile(r"`([a-z_/]+/test_\w+\.py)::(test_\w+)`")
_SPAN = re.compile(r"`([^`\n]+)`")


def rows(text: str) -> list[list[str]]:
    """The cells of every table row in ``text``, heads and rules included."""
    lines = (line for line in text.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def cases(area: str) -> list[list[str]]:
    return rows(section(THREATS, area))[2:]


# Threats -----------------------------------------------------------------------------------


@cache
def functions_of(path: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((PROJECT / "tests" / path).read_text())
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_is_named_exists_and_is_expected_to_pass():
    named = _TEST.findall(THREATS)
    assert len(named) > 100
    for path, name in named:
        assert name in functions_of(path), f"{path}::{name}"
        marks = [ast.unparse(mark) for mark in functions_of(path)[name].decorator_list]
        assert not any("xfail" in mark for mark in marks), f"{path}::{name}"


@pytest.mark.parametrize("area", AREAS)
def test_every_case_says_how_it_is_refused_and_what_proves_it(area):
    assert cases(area)
    attacks = {attack.name for attack in GALLERY}
    for case, refused, proof in cases(area):
        assert refused, case
        staged = re.findall(r"lab `([a-z-]+)`", proof)
        assert set(staged) <= attacks, case
        assert staged or _TEST.search(proof), case


def test_every_attack_of_the_lab_is_in_a_table():
    told = {
        name
        for area in AREAS
        for row in cases(area)
        for name in re.findall(r"lab `([a-z-]+)`", row[2])
    }
    assert told == {attack.name for attack in GALLERY}


@pytest.mark.parametrize("area", AREAS)
def test_every_code_that_is_named_exists(area):
    for case, refused, _ in cases(area):
        unknown = set(_SPAN.findall(refused)) - codes()
        assert not unknown, (case, unknown)


@cache
def codes() -> frozenset[str]:
    """Codes of errors, of reasons, and of the shipped policy's clauses."""
    for module in pkgutil.walk_packages(catena.__path__, "catena."):
        if ".lab.node" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    errors = {kind.code for kind in descendants(CatenaError)}
    clauses = {f"policy:{clause.name}" for clause in compile_policy(default_policy_text()).clauses}
    return frozenset(errors | clauses | set(reasons()))


def descendants(kind: type[CatenaError]) -> Iterator[type[CatenaError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from descendants(child)


def reasons() -> Iterator[str]:
    """What the rooms that give reasons write as a code: string constants of that shape."""
    for path in (
        "appraise/containerclaims.py",
        "appraise/containers.py",
        "appraise/explanation.py",
        "service/states.py",
    ):
        for node in ast.walk(ast.parse((PROJECT / "src/catena" / path).read_text())):
            if isinstance(node, ast.Constant) and re.fullmatch(
                r"[a-z]+(-[a-z]+)+", str(node.value)
            ):
                yield node.value
    client = (PROJECT / "src/catena/containers/wrapper/gate-client.c").read_text()
    yield from re.findall(r'["\[]([a-z]+(?:-[a-z]+)+)["\]]', client)


# TPMs ---------------------------------------------------------------------------------------


def test_every_tolerance_and_the_issuers_it_is_limited_to_are_in_the_manual():
    table = [row for row in rows(section(MANUAL, "3. The trust service")) if len(row) == 3]
    told = {name.strip("`"): whose for name, _, whose in table}
    for name, tolerance in TOLERANCES.items():
        assert name in told
        for issuer in tolerance.issuers:
            assert issuer in told[name] or issuer == "Advanced Micro Devices"
        assert tolerance.issuers or "any" in told[name]


def test_every_fact_about_the_tpm_is_in_the_manual():
    facts = {row.name for row in FACT_TABLE if row.name.startswith("tpm_")}
    assert facts <= set(_SPAN.findall(section(MANUAL, "3. The trust service")))


# Commands and exit codes -------------------------------------------------------------------


@pytest.mark.parametrize("document", [MANUAL, README, THREATS], ids=["manual", "readme", "threats"])
def test_every_command_that_is_mentioned_exists(document):
    mentioned = commands_in(document)
    assert mentioned
    for noun, verb in mentioned:
        found = command.get_command(click.Context(command), noun)
        assert found is not None, noun
        if verb and isinstance(found, click.Group):
            assert verb in found.commands, f"{noun} {verb}"


def commands_in(document: str) -> set[tuple[str, str]]:
    """Nouns and verbs behind ``catena`` in code: in spans and in blocks."""
    blocks = re.findall(r"```\n(.*?)```", document, re.DOTALL)
    code = "\n".join([*_SPAN.findall(re.sub(r"```.*?```", "", document, flags=re.DOTALL)), *blocks])
    return set(re.findall(r"(?:^|\s)catena ([a-z]+)(?: ([a-z]+(?:-[a-z]+)*))?", code))


def test_exit_codes_are_those_of_the_code():
    table = [row for row in rows(MANUAL) if row[0].isdecimal()]
    assert [int(number) for number, _ in table] == [int(code) for code in ExitCode]
    assert all(meaning for _, meaning in table)
    assert "exit code |" not in README  # it would be a second place to keep right


# The API -----------------------------------------------------------------------------------


def test_every_operation_of_the_api_is_in_the_manual_as_it_is():
    table = MANUAL.split("| request | right | what |\n", 1)[1].split("\n\n", 1)[0]
    wanted = [
        [
            f"`{one.method} {one.path.replace(':path}', '}')}`",
            f"`{one.right}`" if one.right else "none",
            one.summary,
        ]
        for one in OPERATIONS
    ]
    assert rows(table)[1:] == wanted


# Roles -------------------------------------------------------------------------------------


def test_roles_and_rights_are_those_of_the_code():
    _, table = MANUAL.split("| right | ", 1)
    head, *lines = rows("| right | " + table.split("\n\n", 1)[0])
    told = {
        line[0].strip("`"): {
            role for role, cell in zip(head[1:-1], line[1:-1], strict=True) if cell
        }
        for line in lines[1:]
    }
    assert told == {right: {r for r, has in RIGHTS.items() if right in has} for right in Right}


# Settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "kind"),
    [("server.toml", Config), ("agent.toml", AgentConfig), ("witness.toml", WitnessConfig)],
    ids=["server.toml", "agent.toml", "witness.toml"],
)
def test_settings_and_their_defaults_are_those_of_the_code(file, kind):
    wanted = {f"`{field.name}`": default_of(field) for field in msgspec.structs.fields(kind)}
    assert settings_of(file) == wanted


def settings_of(file: str) -> dict[str, str]:
    table = MANUAL.split(f"| `{file}` | default | meaning |\n", 1)[1].split("\n\n", 1)[0]
    return {name: default for name, default, _ in rows(table)[1:]}


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "(needed)"
    if field.default is None:
        return "none"
    value = str(field.default) if isinstance(field.default, Path) else field.default
    return f"`{msgspec.json.encode(value).decode()}`"


# What the server writes ----------------------------------------------------------------------


def test_events_of_the_server_and_their_fields_are_those_of_the_code():
    table = MANUAL.split("| `event` | when | fields besides `at` |\n", 1)[1].split("\n\n", 1)[0]
    told = {row[0].strip("`"): set(_SPAN.findall(row[2])) for row in rows(table)[1:]}
    fields = {
        kind: set(kind.__struct_fields__) - {"at", "event"}
        for kind in (AccessLine, FaultLine, LifeLine)
    }
    assert told.pop("request") == fields[AccessLine]
    assert told.pop("fault") == fields[FaultLine]
    lines: list[dict[str, object]] = []
    life = Lifecycle(lambda line: lines.append(msgspec.json.decode(line)))
    life.started(version="1", pid=1, schema=1, log_size=1)
    life.migrated((2,))
    life.ready("url", "approve")
    life.draining("SIGTERM", delay=1, grace=1)
    life.stopped()
    assert told == {str(line["event"]): set(line) - {"at", "event"} for line in lines}
    assert set().union(*told.values()) == fields[LifeLine]
