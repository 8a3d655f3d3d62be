from __future__ import annotations

import importlib
import pkgutil

import msgspec
import pytest

import catena
from catena.appraise.clause import Place, PolicySyntax
from catena.errors import CatenaError, ExitCode, FormatError, Refusal, Unavailable
from catena.formats.nodeapi import ErrorBody, decode
from catena.server.client import ServerRefusal
from catena.server.faults import problem_of, status_of
from catena.service.attestation import LogsMissing
from catena.service.nodes import UnknownNode
from catena.service.policies import PolicyMoved, PolicyRollback
from catena.store.errors import Conflict, NameTaken


def every_error() -> list[type[CatenaError]]:
    for module in pkgutil.walk_packages(catena.__path__, "catena."):
        if module.name.split(".")[1] in {"audit", "appraise", "keys", "service", "server", "store"}:
            importlib.import_module(module.name)
    found, queue = [], [CatenaError]
    while queue:
        kind = queue.pop()
        found.append(kind)
        queue += kind.__subclasses__()
    return found


def test_every_error_has_one_status_and_says_what_to_do():
    for kind in every_error():
        error = kind.__new__(kind)
        assert 400 <= status_of(error) < 600, kind
        assert kind.code, kind
        if kind.__module__.startswith(("catena.service", "catena.server")):
            # A ServerRefusal repeats what another process said, remedy included.
            assert kind.remedy or kind is ServerRefusal, kind


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FormatError("x", offset=3), 400),
        (Refusal("x"), 403),
        (UnknownNode("x"), 404),
        (NameTaken("x"), 409),
        (Conflict("x"), 409),
        (LogsMissing(("ab" * 32,)), 409),
        (PolicySyntax("x"), 400),
        (PolicyRollback("x"), 409),
        (PolicyMoved("x"), 409),
        (Unavailable("x"), 503),
        (CatenaError("x"), 500),
    ],
)
def test_statuses(error, status):
    assert status_of(error) == status


def sent(error: CatenaError) -> ErrorBody:
    """The problem details as a client reads them."""
    return msgspec.json.decode(msgspec.json.encode(problem_of(error)), type=ErrorBody)


def test_every_error_has_its_own_problem_type_and_title():
    for kind in every_error():
        problem = ErrorBody.of(status_of(kind.__new__(kind)), kind.code, "x")
        assert problem.type == f"urn:catena:error:{kind.code}"
        assert problem.title
        assert msgspec.json.decode(msgspec.json.encode(problem), type=ErrorBody) == problem


@pytest.mark.parametrize(
    "changed",
    [
        {"type": "urn:catena:error:other"},
        {"type": "about:blank"},
        {"code": "Not A Code"},
        {"status": 200},
        {"instance": "/v1"},
    ],
)
def test_problem_details_are_read_strictly(changed):
    fields = msgspec.to_builtins(ErrorBody.of(403, "refused", "no")) | changed
    with pytest.raises(FormatError):
        decode(msgspec.json.encode(fields), ErrorBody)


def test_a_refusal_says_what_was_expected_and_got():
    error = FormatError("bad", offset=3, expected="a", got="b")
    body = sent(error)
    assert (body.detail, body.expected, body.got, body.offset) == ("bad", "a", "b", 3)


def test_a_failure_of_ours_says_only_its_code():
    body = msgspec.json.encode(
        problem_of(Unavailable("disk /dev/sda", expected="a", got="b"), "r1")
    )
    assert b"sda" not in body
    decoded = msgspec.json.decode(body, type=ErrorBody)
    assert (decoded.code, decoded.status, decoded.request_id) == ("unavailable", 503, "r1")


def test_a_refused_policy_keeps_its_place_and_exit_code_on_the_way_to_the_caller():
    error = PolicySyntax("no such fact", place=Place(3, 7), got="uptime")
    body = sent(error)
    refusal = ServerRefusal(status_of(error), body)

    assert refusal.message == "line 3, column 7: no such fact"
    assert refusal.got == "uptime"
    assert refusal.exit_code is ExitCode.POLICY
    assert refusal.code == PolicySyntax.code
