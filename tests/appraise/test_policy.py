from __future__ import annotations

import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.appraise.clause import MAX_CLAUSES, Place, PolicyError, PolicySyntax
from catena.appraise.facts import FACT_TABLE, Facts, best_facts, worst_facts
from catena.appraise.policy import (
    MAX_POLICY,
    AlwaysTruePolicy,
    EmptyPolicy,
    NonBooleanPolicy,
    UnknownFact,
    UnusablePolicy,
    check_policy,
    compile_policy,
    default_policy_text,
)
from catena.errors import ExitCode

TEXT = """\
// what a node must show
[secure-boot] Secure Boot is on
  secure_boot

[known] every event is known,
  unclaimed_events == 0 // not even one
    && release != ""
"""
BEST, WORST = Facts(**best_facts()), Facts(**worst_facts())


def clause(expression: str) -> str:
    return f"[clause] it holds\n  {expression}\n[other] Secure Boot is on\n  secure_boot\n"


def test_the_fact_table_and_the_facts_agree_in_name_order_and_type():
    fields = msgspec.structs.fields(Facts)
    assert [row.name for row in FACT_TABLE] == [field.name for field in fields]
    for row, field in zip(FACT_TABLE, fields, strict=True):
        msgspec.convert(row.worst, field.type, strict=True)
        msgspec.convert(row.best, field.type, strict=True)
        assert row.meaning


def test_facts_survive_json():
    assert msgspec.json.decode(msgspec.json.encode(BEST), type=Facts) == BEST


def test_a_boot_that_meets_every_clause_gives_no_reason():
    assert compile_policy(TEXT).judge(BEST) == ()


def test_every_clause_that_fails_gives_its_own_reason():
    reasons = compile_policy(TEXT).judge(WORST)
    assert [reason.code for reason in reasons] == ["policy:secure-boot", "policy:known"]
    assert "Secure Boot is on" in reasons[0].message


def test_the_shipped_policy_accepts_the_best_and_refuses_the_worst_boot():
    policy = compile_policy(default_policy_text())
    assert policy.judge(BEST) == ()
    assert [r.code for r in policy.judge(WORST)] == [f"policy:{c.name}" for c in policy.clauses]


@pytest.mark.parametrize(
    "worse",
    [
        {"secure_boot": False},
        {"setup_mode": True},
        {"audit_mode": True},
        {"unclaimed_events": 1},
        {"release": ""},
        {"release_security_version": -1},
        {"key_set": ""},
        {"firmware": ""},
    ],
)
def test_the_shipped_policy_refuses_each_single_fault(worse):
    policy = compile_policy(default_policy_text())
    assert len(policy.judge(msgspec.structs.replace(BEST, **worse))) == 1


@pytest.mark.parametrize("text", ["", "\n\n", "// only a comment\n"])
def test_an_empty_policy_is_an_error(text):
    with pytest.raises(EmptyPolicy):
        compile_policy(text)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("secure_boot\n", 1, 1),
        ("  secure_boot\n", 1, 3),
        ("[a] b\n  secure_boot\nsecure_boot\n", 3, 1),
        ("[a] b\n  secure_boot\n\n secure_boot\n", 4, 2),
        ("[Upper] b\n  secure_boot\n", 1, 1),
        ("[a]\n  secure_boot\n", 1, 1),
        ("[a] bell \x07\n  secure_boot\n", 1, 10),
        ("[a] b\n\n[c] d\n  secure_boot\n", 1, 1),
        ("[a] b\n  secure_boot\n[a] b\n  secure_boot\n", 3, 2),
        ("[a] b\n  secure_boot &&\n", 2, 17),
        ("// c\n[a] b\n\n  secure_boot\n  &&& true\n", 5, 5),
    ],
)
def test_text_that_is_no_policy_is_refused_with_its_place(text, line, column):
    with pytest.raises(PolicySyntax) as refusal:
        compile_policy(text)
    assert refusal.value.place == Place(line, column)
    assert str(refusal.value).startswith(f"line {line}, column {column}: ")
    assert refusal.value.as_dict()["column"] == column
    assert refusal.value.exit_code is ExitCode.POLICY


def test_an_oversized_policy_is_refused():
    with pytest.raises(PolicySyntax):
        compile_policy("/" * (MAX_POLICY + 1))
    with pytest.raises(PolicySyntax):
        compile_policy(clause("1" + "+1" * 4000 + " > 0"))
    many = "".join(f"[c{i}] x\n  secure_boot\n" for i in range(MAX_CLAUSES + 1))
    with pytest.raises(PolicySyntax):
        compile_policy(many)


@pytest.mark.parametrize("expression", ["secureboot", "secure_boot && nosuch.field", "x.all(y, y)"])
def test_a_clause_about_an_unknown_fact_is_refused(expression):
    with pytest.raises(UnknownFact):
        compile_policy(clause(expression))


@pytest.mark.parametrize(
    ("expression", "line", "column", "name"),
    [
        ("secureboot", 2, 3, "secureboot"),
        ("secure_boot &&\n\n     nosuch", 4, 6, "nosuch"),
        ("'nosuch' != release && nosuch", 2, 26, "nosuch"),
        ('"\\"nosuch" != release && nosuch', 2, 28, "nosuch"),
        ("r'nosuch\\' != release && nosuch", 2, 28, "nosuch"),
        ("secure_boot // nosuch\n  && nosuch", 3, 6, "nosuch"),
        ("authorities.exists(s, s == 'db') && s == 'db'", 2, 39, "s"),
        ("s == 'db' || authorities.exists(s, s == 'db')", 2, 3, "s"),
        ("authorities.exists(s, (s == t)) || secure_boot", 2, 31, "t"),
        ("s.exists(s, s == 'db')", 2, 3, "s"),
    ],
)
def test_an_unknown_fact_is_found_where_it_stands(expression, line, column, name):
    with pytest.raises(UnknownFact) as refusal:
        compile_policy(clause(expression))
    assert (refusal.value.place, refusal.value.got) == (Place(line, column), name)


def test_every_fault_is_found_in_the_order_of_the_file():
    text = (
        "[one] it holds\n  nosuch && other\n[two] it holds\n  release\n"
        "[bad]\n  secure_boot\n[three] it holds\n  secure_boot ||\n[four] it holds\n  true\n"
    )
    found = [(fault.code, fault.place) for fault in check_policy(text).faults]
    assert found == [
        ("policy-unknown-fact", Place(2, 3)),
        ("policy-unknown-fact", Place(2, 13)),
        ("policy-not-boolean", Place(4, 3)),
        ("policy-syntax", Place(5, 1)),
        ("policy-syntax", Place(8, 17)),
        ("policy-always-true", Place(10, 3)),
    ]


def test_what_is_wrong_with_the_whole_policy_has_no_place():
    assert [fault.place for fault in check_policy("").faults] == [None]
    (fault,) = check_policy("[only] it holds\n  command_line.size() < 9\n").faults
    assert (fault.code, fault.place) == ("policy-always-true", None)


@given(st.text(alphabet="[]ab \n/'\"\\(.,)=&|0", max_size=80))
def test_every_place_is_in_the_text(text):
    lines = text.splitlines()
    for fault in check_policy(text).faults:
        if fault.place:
            assert 1 <= fault.place.line <= len(lines)
            assert 1 <= fault.place.column <= len(lines[fault.place.line - 1]) + 1


@pytest.mark.parametrize("expression", ["1", "release", "secure_boot ? 1 : 2", "[secure_boot]"])
def test_a_clause_that_is_no_boolean_is_refused(expression):
    with pytest.raises(NonBooleanPolicy):
        compile_policy(clause(expression))


@pytest.mark.parametrize("expression", ["release + 1 == 2", "nosuch(secure_boot)", "release > 3"])
def test_a_clause_that_cannot_be_evaluated_is_refused(expression):
    with pytest.raises(UnusablePolicy):
        compile_policy(clause(expression))


@pytest.mark.parametrize("expression", ["true", "1 == 1", "[1, 2].all(n, n > 0)"])
def test_a_clause_that_is_always_true_is_refused(expression):
    with pytest.raises(AlwaysTruePolicy):
        compile_policy(clause(expression))


@pytest.mark.parametrize(
    "expression",
    [
        "secure_boot || !secure_boot",
        "unclaimed_events >= 0",
        "release_security_version > -2",
        "secure_boot ? !setup_mode || setup_mode : true",
        "secure_boot == audit_mode || secure_boot != audit_mode",
        "release == 'lab-1' || release != 'lab-1'",
        "reset_count < 7 || reset_count == 7 || reset_count > 7",
        "'db' in authorities || !('db' in authorities)",
        "release >= firmware || firmware > release",
    ],
)
def test_a_clause_that_no_boot_can_fail_is_refused(expression):
    with pytest.raises(AlwaysTruePolicy) as refusal:
        compile_policy(clause(expression))
    assert refusal.value.place == Place(2, 3)


@pytest.mark.parametrize(
    "expression",
    [
        "bank != 'sha1'",
        "reset_count != 7",
        "reset_count != 0x10 && reset_count != 010",
        "!(release > 'a' && release < 'c')",
        "!('db' in authorities && 'other' in authorities)",
        "!release.matches('^lab-[0-9]+$')",
        "command_line.size() < 5000",
        "reset_count * reset_count != 49",
        "secure_boot || !setup_mode",
    ],
)
def test_a_clause_that_some_boot_fails_is_not_taken_for_always_true(expression):
    assert compile_policy(clause(expression)).judge(WORST)


@pytest.mark.parametrize(
    "expression", ["secure_boot || !secure_boot", "unclaimed_events >= 0", 'bank != "sha1"']
)
def test_a_policy_that_accepts_the_worst_boot_is_refused(expression):
    with pytest.raises(AlwaysTruePolicy):
        compile_policy(f"[only] it holds\n  {expression}\n")


def test_a_comprehension_may_name_what_it_binds():
    policy = compile_policy(clause("authorities.exists(subject, subject == 'db')"))
    assert policy.judge(BEST) == ()
    assert len(policy.judge(WORST)) == 2


def test_the_prefix_of_a_bytes_literal_is_no_name():
    expression = "authorities.exists(b, b == 'db') || b'x' == b'y'"
    assert compile_policy(clause(expression)).judge(BEST) == ()


def test_a_clause_that_fails_to_evaluate_on_a_boot_does_not_hold():
    policy = compile_policy(clause("secure_boot == (1 / (7 - reset_count) < 100)"))
    assert policy.judge(msgspec.structs.replace(BEST, reset_count=7))[0].code == "policy:clause"


def test_the_digest_names_the_text():
    assert compile_policy(TEXT).digest == compile_policy(TEXT).digest
    assert compile_policy(TEXT).digest != compile_policy(TEXT + "\n").digest


def test_a_compiled_policy_judges_in_any_thread():
    policy, found = compile_policy(TEXT), []
    threads = [threading.Thread(target=lambda: found.append(policy.judge(BEST))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [()] * 4


@given(st.text(max_size=60))
def test_no_text_passes_for_a_policy_by_accident(text):
    try:
        policy = compile_policy(text)
    except PolicyError:
        return
    assert policy.judge(WORST)


@given(st.text(alphabet='seucr_bot!&|()= 01"', max_size=30))
def test_no_expression_breaks_the_compiler(expression):
    try:
        policy = compile_policy(f"[clause] it holds\n  {expression}\n")
    except PolicyError:
        return
    assert policy.judge(WORST)
